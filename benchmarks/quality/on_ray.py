"""Jobs shared out to the machines of a Ray cluster. Ray is an extra: `pip install ray`.

Every machine has this repository, set up once by `python3 dev.py test --collect-only` or any other command,
and joins from its folder with its environment's Ray: `.venv/bin/ray start --address HEAD:6379`, with
`PYTHONPATH` naming the folder. A worker keeps its model for all the jobs that it gets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from .jobs import Do, Job

RETRIES = 3  # of a job whose worker was lost
LOCAL = "local"

_made: dict[str, Do] = {}  # in a worker's process: what does the jobs, kept from one to the next


def done_on_ray(
    address: str, jobs: Sequence[Job], make: Callable[[], Do], cpus: int = 1
) -> Iterator[tuple[Job, Mapping[str, Any]]]:
    """Each job with what came of it, in the order in which they end.

    Args:
        address: of the cluster's head, or "local" for a cluster of this machine alone.
        make: makes what does jobs, in a worker's process.
        cpus: of each job.

    Raises:
        ModuleNotFoundError: there is no Ray.
        RuntimeError: some jobs failed; all others have been yielded by then.
    """
    try:
        import ray
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError("There is no Ray here. Install it: .venv/bin/pip install ray") from error
    started = not ray.is_initialized()
    if started:
        ray.init(address=None if address == LOCAL else address, log_to_driver=True)
    try:
        one = ray.remote(num_cpus=cpus, max_retries=RETRIES)(_one)
        where = ray.put(make)
        waiting = {one.remote(where, job): job for job in jobs}
        failed: list[str] = []
        while waiting:
            (reference,), _ = ray.wait(list(waiting), num_returns=1)
            job = waiting.pop(reference)
            try:
                yield job, ray.get(reference)
            except ray.exceptions.RayError as error:
                failed.append(f"{job.told()}: {error}")
        if failed:
            raise RuntimeError(
                f"{len(failed)} of {len(jobs)} jobs failed; the others are done, and the same command does "
                "these again.\n" + "\n".join(failed)
            )
    finally:
        if started:
            ray.shutdown()


def _one(make: Callable[[], Do], job: Job) -> Mapping[str, Any]:
    if "do" not in _made:
        _made["do"] = make()
    return _made["do"](job)
