"""Jobs of the kind `entries`: whether single entries of K/V are what keeps concepts apart.

An entry (row, column) of a projection reads one column of the text features. What a concept's captions and
what everything else say in that column is the diagonal of two second moments, and the *gain* of an entry,
energy on the concept for each unit of energy on what is protected, is their quotient. A direction of text
features mixes columns; its gain is a generalised eigenvalue of the same two moments (docs/directions.md).

    gain of a mask        of all its entries, moved alike and independently
    best in its columns   of the best direction that a row can make of the columns in which its entries lie
"""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from devtools.concept_folders import read_concepts
from devtools.staging import SHIPPED_CONCEPTS

from .jobs import Job
from .overlap import SELECTED_BY
from .variants import VARIANTS

if TYPE_CHECKING:
    from torch import Tensor

    from .bench import Bench

ENTRIES = "entries"
CHOSEN_BY = ("cns", "random")  # entries
_ROWS = 4  # of each projection, looked at
_FLOOR = 1e-3  # of the mean, so that the protected moment is positive definite


def entries_job(stream: Sequence[str], settings: Mapping[str, Any], **more: Any) -> Job:
    """Of some concepts, each with its token learned alone."""
    token = VARIANTS["token alone"].settings(settings)
    chosen = VARIANTS["cns"].settings(settings)
    values = {**token, **{name: chosen[name] for name in SELECTED_BY if name in chosen}}
    return Job(ENTRIES, {"stream": list(stream), "seed": 0, **values, **more})


def entries(bench: Bench, values: Mapping[str, Any]) -> dict[str, Any]:
    """concepts: for each the gains; iou: of CNS's masks of two concepts, the mean over pairs; iou_of_rows: of
    the columns chosen in two rows of one projection; by_chance: of both where they are chosen at random.
    """
    from cns_core.host.prepare import prepare

    cns = VARIANTS["cns"]
    found, masks = {}, []
    for folder in read_concepts(SHIPPED_CONCEPTS, values["stream"]):
        concept, loaded = bench.concept(folder), bench.loaded
        memory, _ = bench.learn(concept, None, "token alone", values["seed"], values)
        plan = prepare(
            loaded.model,
            loaded.clip,
            concept,
            None,
            cns.method,
            cns.selection(values),
            lambda done, total: None,
        )
        mask = plan.prepared.mask
        masks.append(mask)
        own, protected = _moments(bench, memory)
        rows = [row for name in mask.layout.names for row in _some(mask.dense(name))]
        found[folder.name] = _gains(own, protected, rows) | {"share": mask.share()}
    share = statistics.mean(one["share"] for one in found.values())
    ious = [one.iou(other) for one, other in itertools.combinations(masks, 2)]
    of_rows = [_iou(*_some(mask.dense(name))[:2]) for mask in masks for name in mask.layout.names]
    return {
        "concepts": found,
        "iou": statistics.mean(ious) if ious else None,
        "iou_of_rows": statistics.mean(of_rows),
        "by_chance": share / (2 - share),
    }


def _moments(bench: Bench, memory: Any) -> tuple[Tensor, Tensor]:
    """Of the concept's captions, with its learned token, and of what is protected."""
    import torch

    from cns_core.general_prompts import general_prompts
    from cns_core.host.prompt_reader import PromptReader
    from cns_core.protected import ALL_TOKENS, AUTOMATIC_ON_CPU

    (taught,) = memory.taught()
    width = memory.layout.shapes[0][1]
    reader = PromptReader(bench.loaded.clip, memory.token_vectors(), width, lambda done, total: None)
    groups = [general_prompts(AUTOMATIC_ON_CPU), taught.class_captions(), taught.captions]
    general, of_class, own = reader.second_moments(groups, ALL_TOKENS, lasting=1)
    protected = general + of_class
    floor = _FLOOR * protected.diagonal().mean()
    return own, protected + floor * torch.eye(width, dtype=protected.dtype)


def _some(mask: Tensor) -> Tensor:
    """`(_ROWS, text_dim)`: rows of a mask, evenly spread."""
    import torch

    return mask[torch.linspace(0, len(mask) - 1, _ROWS).long()]


def _gains(own: Tensor, protected: Tensor, rows: Sequence[Tensor]) -> dict[str, Any]:
    """Of the first direction, of single columns, and by who has chosen the entries: see the module."""
    import torch

    single = own.diagonal() / protected.diagonal()
    generator = torch.Generator().manual_seed(0)
    random = [torch.randperm(len(own), generator=generator)[: int(row.sum())] for row in rows]
    chosen = {"cns": [row.nonzero().reshape(-1) for row in rows], "random": random}
    everything = torch.arange(len(own))
    return {
        "direction": best_gain(own, protected, everything),
        "columns": [float(single.quantile(q)) for q in (0.0, 0.5, 1.0)],
        "mask": {
            who: float(
                sum(own.diagonal()[c].sum() for c in sets) / sum(protected.diagonal()[c].sum() for c in sets)
            )
            for who, sets in chosen.items()
        },
        "best_in_columns": {
            who: statistics.mean(best_gain(own, protected, columns) for columns in sets if len(columns))
            for who, sets in chosen.items()
        },
    }


def best_gain(own: Tensor, protected: Tensor, columns: Tensor) -> float:
    """The largest u^T C_own u / u^T P u of directions u that use these columns alone."""
    import torch

    lower = torch.linalg.cholesky(protected[columns][:, columns])
    half = torch.linalg.solve_triangular(lower, own[columns][:, columns], upper=False)
    inner = torch.linalg.solve_triangular(lower, half.T, upper=False)
    return float(torch.linalg.eigvalsh((inner + inner.T) / 2)[-1])


def _iou(first: Tensor, second: Tensor) -> float:
    return float((first & second).sum()) / max(1, int((first | second).sum()))


def table(records: Sequence[Mapping[str, Any]]) -> str:
    """A row for each concept; empty where there are none."""
    if not records:
        return ""
    lines = [
        "| concept | single columns: least, middle, most | CNS's entries | random ones "
        "| best in CNS's columns | in random ones | best direction |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in (item for record in records for item in record["concepts"].items()):
        figures = [
            " / ".join(f"{gain:.2f}" for gain in one["columns"]),
            *(f"{one[of][who]:.2f}" for of in ("mask", "best_in_columns") for who in CHOSEN_BY),
            f"{one['direction']:.1f}",
        ]
        lines.append(f"| {name} | {' | '.join(figures)} |")
    for record in records:
        if record["iou"] is not None:
            told = (
                f"Of {', '.join(record['stream'])}: masks of two concepts have an IoU of "
                f"{record['iou']:.2f}, the columns of two rows of one projection "
                f"{record['iou_of_rows']:.2f}; at random both would have {record['by_chance']:.2f}."
            )
            lines += ["", told]
    return "\n".join(lines)
