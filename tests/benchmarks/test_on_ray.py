"""Jobs on a Ray cluster of this machine: a lost worker's job is done again, a finished one never twice."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.jobs import Do, Job
from benchmarks.quality.on_ray import done_on_ray

ray = pytest.importorskip("ray", reason="Ray is an extra: pip install ray")


def counting(folder: Path) -> Do:
    """Counts, in files, how often each job is begun and ended; the second is cut off the first time."""

    def do(job: Job) -> Mapping[str, Any]:
        number = job.values["seed"]
        begun = len(list(folder.glob(f"begun-{number}-*")))
        (folder / f"begun-{number}-{begun}").touch()
        if number == 1 and not begun:
            os._exit(1)  # as a machine that is switched off
        if number == 2 and "fails" in job.values:
            raise ValueError("this one cannot be done")
        time.sleep(0.2)
        (folder / f"ended-{number}-{begun}").touch()
        return {"squared": number**2, "process": os.getpid()}

    return do


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def jobs(**more: Any) -> list[Job]:
    return [Job("learn", {"seed": number, **more}) for number in range(5)]


def test_a_lost_workers_job_is_done_again_and_no_other(cluster: None, tmp_path: Path) -> None:
    done = dict_of(done_on_ray("local", jobs(), partial(counting, tmp_path)))
    assert {number: found["squared"] for number, found in done.items()} == {n: n**2 for n in range(5)}
    begun = [len(list(tmp_path.glob(f"begun-{number}-*"))) for number in range(5)]
    ended = [len(list(tmp_path.glob(f"ended-{number}-*"))) for number in range(5)]
    assert begun == [1, 2, 1, 1, 1] and ended == [1] * 5
    assert (
        len({found["process"] for found in done.values()}) <= 3
    )  # two workers, and one in a lost one's place


def test_one_that_fails_is_told_after_all_others_are_done(cluster: None, tmp_path: Path) -> None:
    done = {}
    with pytest.raises(RuntimeError, match=r"1 of 5 jobs failed.*\n.*seed 2: .*") as told:
        for job, found in done_on_ray("local", jobs(fails=True), partial(counting, tmp_path)):
            done[job.values["seed"]] = found
    assert sorted(done) == [0, 1, 3, 4] and "this one cannot be done" in str(told.value)


def dict_of(found: Iterator[tuple[Job, Mapping[str, Any]]]) -> dict[int, Mapping[str, Any]]:
    return {job.values["seed"]: result for job, result in found}
