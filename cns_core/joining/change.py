"""A concept's share in what was joined."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ..projections import ProjectionLayout
from .maps import Part

_UP, _DOWN, _DENSE = "up.", "down.", "dense."
_SHARED = "down"  # one for all projections


class JoinedChange:
    """`W_t = W_{t-1} + share`, added to whatever is there: the shares of all concepts sum to what was joined.

    Args:
        rule: by which it was joined.
        ups: float16 `(out, r)`, by projection.
        downs: float32 `(r, text_dim)`, of the same projections; in full precision, for what keeps prompts
            still is that long numbers cancel.
        dense: float16 `(out, text_dim)`, of the other projections.

    Raises:
        ValueError: other shapes or types, or values that are not finite.
    """

    def __init__(
        self,
        rule: str,
        layout: ProjectionLayout,
        ups: Mapping[str, Tensor],
        downs: Mapping[str, Tensor],
        dense: Mapping[str, Tensor],
    ) -> None:
        for name, (out, width), _ in layout.slices():
            found = {"up": ups.get(name), "down": downs.get(name), "dense": dense.get(name)}
            seen = {p: (t.dtype, tuple(t.shape)) for p, t in found.items() if t is not None}
            r = seen["down"][1][0] if "down" in seen and len(seen["down"][1]) == 2 else 0
            factored = {"up": (torch.float16, (out, r)), "down": (torch.float32, (r, width))}
            if seen not in (factored, {"dense": (torch.float16, (out, width))}):
                raise ValueError(
                    f"The share in {name} is {seen}; expected {factored} or a dense one of the same size."
                )
            if not all(bool(torch.isfinite(t).all()) for t in found.values() if t is not None):
                raise ValueError(f"Some values of the share in {name} are not finite.")
        self.rule, self.layout = rule, layout
        self._ups, self._downs, self._dense = dict(ups), dict(downs), dict(dense)

    @classmethod
    def made(cls, rule: str, layout: ProjectionLayout, parts: Mapping[str, Part]) -> JoinedChange:
        """Of one part for each projection."""
        rights = {name: part.right for name, part in parts.items() if part.right is not None}
        # Concepts of one memory may share theirs, and no two tensors of a file may lie in one place.
        own = {id(right): right.clone() for right in rights.values()}
        downs = {name: own[id(right)] for name, right in rights.items()}
        left = {name: part.left.half() for name, part in parts.items()}
        ups = {name: left[name] for name in downs}
        return cls(rule, layout, ups, downs, {name: left[name] for name in parts if name not in downs})

    @classmethod
    def read(cls, rule: str, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> JoinedChange:
        """From `tensors()`; ValueError for anything else."""
        parts: dict[str, dict[str, Tensor]] = {_UP: {}, _DOWN: {}, _DENSE: {}}
        known = {_SHARED}
        for name in layout.names:
            for kind, found in parts.items():
                known.add(key := kind + name)
                if key in tensors:
                    found[name] = tensors[key]
        if strange := sorted(set(tensors) - known):
            raise ValueError(f"It has the tensor {strange[0]!r}, which no share in these weights has.")
        if _SHARED in tensors:
            parts[_DOWN] = {name: tensors[_SHARED] for name in parts[_UP]} | parts[_DOWN]
        return cls(rule, layout, parts[_UP], parts[_DOWN], parts[_DENSE])

    def tensors(self) -> dict[str, Tensor]:
        found = {_UP + name: up for name, up in self._ups.items()}
        if len({id(down) for down in self._downs.values()}) == 1:
            found[_SHARED] = next(iter(self._downs.values()))
        else:
            found |= {_DOWN + name: down for name, down in self._downs.items()}
        return found | {_DENSE + name: dense for name, dense in self._dense.items()}

    def added(self, name: str) -> tuple[Tensor, Tensor]:
        if name in self._ups:
            return self._ups[name].float(), self._downs[name]
        dense = self._dense[name].float()
        out, width = dense.shape
        return (torch.eye(out), dense) if out < width else (dense, torch.eye(width))

    def lay(self, name: str, on: Tensor) -> Tensor:
        up, down = self.added(name)
        return torch.addmm(on.float(), up, down).half()

    def refined(self, by: Any, ruled: Callable[[str], Tensor]) -> JoinedChange:
        raise ValueError("What was joined is not learned further; learn it further before it is joined.")

    def moved(self, name: str) -> Tensor:
        # Of no columns are those that the concept left alone before.
        return torch.full(self.layout.shape(name), name in self._dense or self._ups[name].shape[1] > 0)

    def summary(self) -> str:
        ranks = sorted({up.shape[1] for up in self._ups.values()})
        of_rank = " to ".join(str(rank) for rank in dict.fromkeys((ranks[0], ranks[-1]))) if ranks else ""
        form = f"of rank {of_rank}" if ranks else "of whole matrices"
        return f"a share {form} in what was joined by {self.rule}"
