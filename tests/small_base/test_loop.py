"""The loop that every tool trains in: how long, what it leaves behind, and what it goes on from."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from small_base.training import loop
from small_base.training.loop import (
    WARM_UP_STEPS,
    Stretch,
    checkpoint_path,
    load_checkpoint,
    save_checkpoint,
    train,
)


class Toy:
    """Counts its steps, and does something else at one of them."""

    name = "toy"

    def __init__(self, at: int | None = None, act: Any = None) -> None:
        self.weight = torch.zeros(2)
        self.rates: list[float] = []
        self.reports: list[int] = []
        self._at, self._act = at, act

    def begin(self, index: int) -> None:
        self.begun = index

    def step(self, index: int, rate: float) -> dict[str, Tensor]:
        self.weight += 1
        self.rates.append(rate)
        done = self._act() if index == self._at else None
        return {"loss": torch.tensor(float(index)) if done is None else done}

    def state(self) -> dict[str, Any]:
        return {"weight": self.weight}

    def load(self, state: dict[str, Any]) -> None:
        self.weight = state["weight"]

    def report(self, folder: Path, index: int) -> dict[str, float]:
        self.reports.append(index)
        return {"seen": float(self.weight[0])}


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "toy.jsonl").read_text().splitlines()]


def test_a_stretch_of_steps(tmp_path: Path) -> None:
    toy = Toy()
    assert train(toy, Stretch(tmp_path / "new", minutes=10, steps=5)) == 5
    saved = load_checkpoint(checkpoint_path(tmp_path / "new", "toy"))
    assert saved["index"] == 5 and saved["seconds"] > 0
    assert torch.equal(saved["trainer"]["weight"], torch.tensor([5.0, 5.0]))
    assert toy.reports == [5]
    first, last = log_of(tmp_path / "new")
    assert (first["step"], first["loss"]) == (1, 0.0)
    assert (last["step"], last["seen"]) == (5, 5.0)
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["toy.ckpt", "toy.jsonl"]


def test_a_stretch_of_time_ends_and_the_log_holds_means(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    class Slow(Toy):
        def step(self, index: int, rate: float) -> dict[str, Tensor]:
            clock[0] += 6.0
            return super().step(index, rate)

    toy = Slow()
    stretch = Stretch(tmp_path, minutes=2, log_seconds=30, save_minutes=0.5, report_minutes=1)
    assert train(toy, stretch) == 20
    assert toy.reports == [10, 20, 20]
    losses = [(line["step"], line["loss"]) for line in log_of(tmp_path) if "loss" in line]
    assert losses == [(1, 0.0), (6, 3.0), (11, 8.0), (16, 13.0)]
    assert log_of(tmp_path)[1]["steps_per_second"] == pytest.approx(1 / 6)


def test_the_next_stretch_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(Toy(), Stretch(tmp_path, minutes=10, steps=3))
    again = Toy()
    assert train(again, Stretch(tmp_path, minutes=10, steps=2)) == 5
    assert again.weight[0] == 5 and len(again.rates) == 2
    assert again.rates == pytest.approx([4 / WARM_UP_STEPS, 5 / WARM_UP_STEPS])
    assert "going on from step 3" in capsys.readouterr().out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_it_saves_first(tmp_path: Path, number: int) -> None:
    handlers = [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)]
    toy = Toy(at=2, act=lambda: signal.raise_signal(number))
    assert train(toy, Stretch(tmp_path, minutes=10, steps=1000)) == 3
    assert load_checkpoint(tmp_path / "toy.ckpt")["index"] == 3
    assert [signal.getsignal(one) for one in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    # Sent to the process instead, two signals may reach a busy one as one.
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    # A shell starts what it puts in the background with Ctrl-C ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(Toy(at=2, act=twice), Stretch(tmp_path, minutes=10, steps=1000))
    finally:
        signal.signal(signal.SIGINT, before)


def test_not_a_number_raises_and_leaves_the_last_good_state(tmp_path: Path) -> None:
    train(Toy(), Stretch(tmp_path, minutes=10, steps=3))
    broken = Toy(at=4, act=lambda: torch.tensor(torch.nan))
    with pytest.raises(FloatingPointError, match=r"toy: not a number at step 5.*toy\.ckpt.*lower learning"):
        train(broken, Stretch(tmp_path, minutes=10, steps=1000, log_seconds=0))
    saved = load_checkpoint(tmp_path / "toy.ckpt")
    assert saved["index"] == 3 and saved["trainer"]["weight"][0] == 3
    with pytest.raises(FloatingPointError, match="Begin anew with a lower learning rate"):
        train(broken, Stretch(tmp_path / "fresh", minutes=10, steps=1000, log_seconds=0))


def test_a_checkpoint_is_whole_or_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "toy.ckpt"
    save_checkpoint(path, {"index": 1})

    def full_disk(_state: object, file: Path) -> None:
        file.write_bytes(b"half of i")
        raise OSError("no space left")

    monkeypatch.setattr(loop.torch, "save", full_disk)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, {"index": 2})
    assert load_checkpoint(path) == {"index": 1}


def test_the_rate_warms_up_and_cools_down(tmp_path: Path) -> None:
    save_checkpoint(
        tmp_path / "toy.ckpt", {"trainer": {"weight": torch.zeros(2)}, "index": 1000, "seconds": 9.0}
    )
    toy = Toy()
    train(toy, Stretch(tmp_path, minutes=10_000, steps=20, cooldown=0.5))
    assert toy.rates[:11] == [1.0] * 11
    assert toy.rates[11:] == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], abs=1e-6)

    fresh = Toy()
    train(fresh, Stretch(tmp_path / "fresh", minutes=10_000, steps=WARM_UP_STEPS + 2))
    assert fresh.rates[0] == 1 / WARM_UP_STEPS and fresh.rates[-3:] == [1.0] * 3
    assert fresh.rates == sorted(fresh.rates)
