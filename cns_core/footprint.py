"""How much memory the forward of a training step keeps for its backward: counted on small inputs, and told
from there for larger ones.

With gradient checkpointing (1604.06174) a block keeps what it reads alone, and is computed again in the
backward.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


@contextmanager
def recomputed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """While open, the forward of these modules keeps what they read alone; what comes of it is the same.

    The backward may come later. Nothing in the blocks may be random.
    """
    own = [vars(block).get("forward") for block in blocks]  # some other program may have given it one
    try:
        for block in blocks:
            block.forward = partial(checkpoint, block.forward, use_reentrant=False, preserve_rng_state=False)
        yield
    finally:
        for block, forward in zip(blocks, own, strict=True):
            vars(block).pop("forward", None)
            if forward is not None:
                block.forward = forward


@dataclass(frozen=True)
class Kept:
    """Bytes that a forward keeps for its backward.

    outside: of all blocks; inside: of each; read: by each block, as it is called.
    """

    outside: int
    inside: tuple[int, ...]
    read: tuple[int, ...]

    @property
    def whole(self) -> int:
        return self.outside + sum(self.inside)

    @property
    def recomputed(self) -> int:
        """With gradient checkpointing: of the blocks, one at a time is whole."""
        return self.outside + sum(self.read) + max(self.inside, default=0)


def storage_of(tensor: Tensor) -> int:
    """What tells storages apart while they are there: tensors on the `meta` device have no address."""
    return int(tensor.untyped_storage()._cdata)


def kept_for_backward(
    forward: Callable[[], Tensor], blocks: Sequence[nn.Module], constants: set[int]
) -> Kept:
    """Count what a forward keeps, each storage once.

    constants: the storages that are there anyway, such as those of weights (`storage_of`).
    """
    outside, inside, read = 0, dict.fromkeys(blocks, 0), dict.fromkeys(blocks, 0)
    seen, within = set(constants), list[nn.Module]()

    def pack(tensor: Tensor) -> Tensor:
        nonlocal outside
        storage = storage_of(tensor)
        if storage not in seen:
            seen.add(storage)
            size = tensor.untyped_storage().nbytes()
            if within:
                inside[within[-1]] += size
            else:
                outside += size
        # Not the tensor itself: one that its own graph keeps would keep that graph, for ever.
        return tensor.detach()

    def enter(block: nn.Module, given: tuple[Any, ...]) -> None:
        within.append(block)
        read[block] += sum(x.numel() * x.element_size() for x in given if isinstance(x, Tensor))

    def leave(block: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        within.pop()

    with ExitStack() as hooks:
        for block in blocks:
            hooks.callback(block.register_forward_pre_hook(enter).remove)
            hooks.callback(block.register_forward_hook(leave).remove)
        hooks.enter_context(torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor))
        result = forward()
    del result  # until here nothing of it was let go, so no two storages had one address
    return Kept(outside, tuple(inside.values()), tuple(read.values()))


@dataclass(frozen=True)
class Growth:
    """Bytes `fixed + rows (per_row + per_cell cells)` of a batch of latents `(rows, C, h, w)`,
    with `cells = h w`.
    """

    fixed: float
    per_row: float
    per_cell: float

    @classmethod
    def of(cls, one: int, two: int, large: int, cells: int, larger: int) -> Growth:
        """one: of a row of `cells`; two: of two such rows; large: of a row of `larger` cells."""
        per_cell = (large - one) / (larger - cells)
        fixed = max(2.0 * one - two, 0.0)
        return cls(fixed, one - fixed - per_cell * cells, per_cell)

    def bytes(self, rows: int, cells: int) -> float:
        return self.fixed + rows * (self.per_row + self.per_cell * cells)


@dataclass(frozen=True)
class Footprint:
    """What a model keeps, by the size of a batch: as it is, and with gradient checkpointing."""

    whole: Growth
    recomputed: Growth

    @classmethod
    def counted(cls, count: Callable[[int, int], Kept], side: int) -> Footprint:
        """count: of rows of latents of `side x side` cells; side: of the smaller ones that it is tried on."""
        one, two, large = count(1, side), count(2, side), count(1, 2 * side)
        cells, larger = side**2, (2 * side) ** 2
        return cls(
            Growth.of(one.whole, two.whole, large.whole, cells, larger),
            Growth.of(one.recomputed, two.recomputed, large.recomputed, cells, larger),
        )
