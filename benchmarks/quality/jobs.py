"""A suite is a list of jobs: runs that need nothing of each other, so that any number of machines can share
them; and the file of what has been done, in which a job is never done twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Do = Callable[["Job"], Mapping[str, Any]]

LEARN = "learn"  # of records that were written before there were other kinds
_DECIDED_BY = "decided_by"  # in a record: which of its entries were the job's values
_LOOKED_AT_BESIDES = ("prompts_of",)  # nothing that is learned or measured otherwise depends on it


@dataclass(frozen=True)
class Job:
    """One run. kind: what is done, see `worker.py`; values: all that decides what comes of it, as JSON."""

    kind: str
    values: Mapping[str, Any]

    def is_in(self, record: Record, absent: Mapping[str, Any]) -> bool:
        """Whether a record is of this job. absent: what values are where a record, or a job, does not tell
        them.
        """
        if record.get("kind", LEARN) != self.kind:
            return False
        # A record of other settings is of another job, which may be one that has no word for them.
        beyond = {*record.get(_DECIDED_BY, absent)} & {*record} - {*self.values, *_LOOKED_AT_BESIDES}
        return all(
            record.get(name, absent.get(name)) == value for name, value in self.values.items()
        ) and all(name in absent and record[name] == absent[name] for name in beyond)

    def told(self) -> str:
        """In a few words."""
        stream = self.values.get("stream")
        words = [f"{self.values[name]}" for name in ("method", "word", "score") if name in self.values]
        words += [" -> ".join(stream)] if stream else []
        return ", ".join([self.kind, *words, f"seed {self.values.get('seed', 0)}"])


class Records:
    """What has been done, one JSON object a line. ValueError for a file with a line that is none.

    absent: values of settings that there were none of when old records were written.
    """

    def __init__(self, path: Path, absent: Mapping[str, Any] | None = None) -> None:
        self.path, self._absent = path, absent or {}
        self._records: list[Record] = []
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        for number, line in enumerate(lines, start=1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise ValueError(
                    f"Line {number} of {path} is no JSON ({error}). It may have been cut off while it was "
                    "written: remove it, and the job is done again."
                ) from error
            self._records.append(record)

    def of(self, job: Job) -> Record | None:
        return next((record for record in self._records if job.is_in(record, self._absent)), None)

    def missing(self, jobs: Sequence[Job]) -> list[Job]:
        """Those that are not done yet, each once."""
        left: list[Job] = []
        for job in jobs:
            if self.of(job) is None and job not in left:
                left.append(job)
        return left

    def add(self, job: Job, result: Mapping[str, Any]) -> Record:
        """Keep what came of a job; it is on the disk when this returns."""
        record = {"kind": job.kind, **job.values, **result, _DECIDED_BY: sorted(job.values)}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        self._records.append(json.loads(json.dumps(record)))
        return record


def done_here(jobs: Sequence[Job], do: Do) -> Iterator[tuple[Job, Mapping[str, Any]]]:
    """One after another, in this process."""
    for job in jobs:
        yield job, do(job)
