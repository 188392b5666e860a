"""The bench of faults: its rows and its exit code; the tests in tests/core and tests/host run its parts."""

import pytest

from benchmarks.faults import __main__ as bench
from benchmarks.faults.jobs import Jobs
from benchmarks.faults.mutations import mutated


@pytest.mark.parametrize(("met", "code"), [(True, 0), (False, 1)])
def test_the_exit_code_tells_whether_a_bar_is_missed(monkeypatch, capsys, met, code):
    def part(seed, share):
        assert (seed, share) == (3, 0.5)
        yield "300 killed while saving: 0 half-written", "0", True
        yield "1 thing: 7", "at most 5", met

    monkeypatch.setitem(bench._PARTS, "saving", part)
    monkeypatch.setattr("sys.argv", ["faults", "--only", "saving", "--seed", "3", "--share", "0.5"])
    assert bench.main() == code
    assert f"| 1 thing: 7 | at most 5 | {'met' if met else 'MISSED'} |" in capsys.readouterr().out


def test_growth_is_the_slope_of_the_second_half():
    leak = Jobs(rss=[10**9] * 10 + [2 * 10**9] * 15 + [3 * 10**9 + 1_000 * i for i in range(25)])
    assert leak.growth() == pytest.approx(1_000)
    assert Jobs(rss=[7] * 50).growth() == 0


def test_files_are_changed_as_the_seed_says():
    from random import Random

    content, other = bytes(range(200)), bytes(100)
    first = [mutated(content, other, Random(seed)) for seed in range(40)]
    assert first == [mutated(content, other, Random(seed)) for seed in range(40)]
    assert len(set(first)) > 20
