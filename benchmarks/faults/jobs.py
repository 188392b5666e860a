"""Many jobs in one server: what its memory and its folder come to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from devtools.api_client import ApiClient
from devtools.graphs import Graph, find_one, keep_only, override, read_graph
from devtools.host_process import HostProcess
from devtools.paths import ROOT
from devtools.staging import SHIPPED_CONCEPTS, SMALL_CHECKPOINT, stage_checkpoint, stage_images


@dataclass
class Jobs:
    """rss: bytes that the server holds after each job; kept: bytes below `user/cns` after each."""

    rss: list[int] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)

    def growth(self) -> float:
        """Bytes a job: the slope of a straight line through the second half. Until about the hundredth of
        small jobs allocators and caches fill, and then it stays as it is; a leak goes on.
        """
        return _slope(self.rss[len(self.rss) // 2 :])


def queued_jobs(count: int, limit_gb: float) -> Jobs:
    """Learn so many concepts of two steps in one server, each from another seed, saved under one name.

    limit_gb: the setting `keep_gb`.
    """
    found = Jobs()
    with HostProcess() as host:
        stage_checkpoint(host.base, None)
        stage_images(host.base, [SHIPPED_CONCEPTS / "panda"])
        with ApiClient(host.url) as client:
            for seed in range(count):
                client.run(_graph(seed, limit_gb))
                found.rss.append(_held(host))
                cns = host.base / "user" / "cns"
                found.kept.append(sum(p.stat().st_size for p in cns.rglob("*") if p.is_file()))
                if (seed + 1) % 20 == 0:
                    held, kept = found.rss[-1] / 1e6, found.kept[-1] / 1e6
                    print(f"  {seed + 1} jobs: {held:.0f} MB, on disk {kept:.1f} MB", flush=True)
    return found


def _graph(seed: int, limit_gb: float) -> Graph:
    graph = read_graph(ROOT / "workflows" / "api" / "learn_concept.json")
    for kind, inputs in {
        "CheckpointLoaderSimple": {"ckpt_name": SMALL_CHECKPOINT},
        "LoadConceptImages": {"resolution": 64},
        "SelectConceptNeurons": {"general_prompts": 24},
        "ContinualTrain": {"steps": 2, "preview_every": 0, "seed": seed, "keep_gb": limit_gb},
        "SaveConceptMemory": {"filename": "jobs", "overwrite": True},
    }.items():
        graph = override(graph, kind, **inputs)
    return keep_only(graph, find_one(graph, "SaveConceptMemory"))


def _held(host: HostProcess) -> int:
    """Resident memory of the server, bytes (Linux)."""
    status = Path(f"/proc/{host.pid}/status").read_text(encoding="ascii")
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) * 1024


def _slope(values: Sequence[int]) -> float:
    n = len(values)
    middle, mean = (n - 1) / 2, sum(values) / n
    spread = sum((i - middle) ** 2 for i in range(n))
    return sum((i - middle) * (v - mean) for i, v in enumerate(values)) / spread
