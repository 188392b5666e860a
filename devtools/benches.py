"""What `dev.py bench` measures by programs of their own."""

from __future__ import annotations

# Of benchmarks/quality/suites.py, which needs the environment: their names are the program's first word.
SUITES = (
    "paper",
    "long",
    "order",
    "alike",
    "forgetting",
    "overlap",
    "entries",
    "ablation",
    "sweep",
    "methods",
    "joining",
    "unlearn",
)

# What `bench` measures by a program of its own, which knows its own options.
BENCHES = {
    "learning": "benchmarks.quality",
    "pairs": "benchmarks.quality.pairs",
    "results": "benchmarks.quality.results",
    **dict.fromkeys(SUITES, "benchmarks.quality.suite"),
    "space": "benchmarks.quality.space",
    "places": "benchmarks.quality.places",
    "directions": "benchmarks.directions",
    "faults": "benchmarks.faults",
    "speed": "benchmarks.speed",
    "memory": "benchmarks.speed.video_memory",
}
