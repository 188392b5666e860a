"""What a concept learned by an adapter leaves: its parameters, of each matrix that it was learned on."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from ...projections import ProjectionLayout
from .forms import Form, Parameters, Shape

_PARTS = "parts"  # how many adapters lie beside each matrix: more than one once a concept was refined


class AdapterChange:
    """The product of an adapter's parameters, added to whatever is there.

    Args:
        parts: a set of parameters each, by the names of matrices; float16, the scale in them already.

    Raises:
        ValueError: other parameters than the form has for these matrices, or some that are not finite.
    """

    def __init__(
        self, form: Form, layout: ProjectionLayout, parts: tuple[Mapping[str, Parameters], ...]
    ) -> None:
        for part in parts:
            for name, shape, _ in layout.slices():
                _check(form, name, shape, part.get(name, {}))
        self.form, self.layout, self.parts = form, layout, parts

    @classmethod
    def read(cls, form: Form, layout: ProjectionLayout, tensors: Mapping[str, Tensor]) -> AdapterChange:
        """From `tensors()`; ValueError for anything else."""
        count = tensors.get(_PARTS)
        if count is None or count.dtype != torch.int64 or count.shape != (1,) or not 0 < int(count) <= 1024:
            raise ValueError(f"It does not say of how many parts its {form.name} is.")
        parts: list[dict[str, Parameters]] = []
        names = {_PARTS}
        for number in range(int(count)):
            part: dict[str, Parameters] = {}
            for name, shape, _ in layout.slices():
                keys = {p: f"{number}.{name}.{p}" for p in form.shapes(shape, 1)}
                part[name] = {p: tensors[key] for p, key in keys.items() if key in tensors}
                names.update(keys.values())
            parts.append(part)
        if strange := sorted(set(tensors) - names):
            raise ValueError(f"It has the tensor {strange[0]!r}, which no {form.name} of these weights has.")
        return cls(form, layout, tuple(parts))

    def tensors(self) -> dict[str, Tensor]:
        found = {_PARTS: torch.tensor([len(self.parts)])}
        for number, part in enumerate(self.parts):
            for name, parameters in part.items():
                found |= {f"{number}.{name}.{p}": tensor for p, tensor in parameters.items()}
        return found

    def added(self, name: str) -> tuple[Tensor, Tensor]:
        found = [
            self.form.factors({p: tensor.float() for p, tensor in part[name].items()}) for part in self.parts
        ]
        return torch.cat([up for up, _ in found], 1), torch.cat([down for _, down in found])

    def lay(self, name: str, on: Tensor) -> Tensor:
        up, down = self.added(name)
        return torch.addmm(on.float(), up, down).half()

    def refined(self, by: AdapterChange, ruled: Callable[[str], Tensor]) -> AdapterChange:
        """Both sums: they are added to whatever is there."""
        return AdapterChange(self.form, self.layout, (*self.parts, *by.parts))

    def moved(self, name: str) -> Tensor:
        return torch.ones(self.layout.shape(name), dtype=torch.bool)

    def summary(self) -> str:
        values = sum(t.numel() for part in self.parts for ps in part.values() for t in ps.values())
        return f"{self.form.name} beside {len(self.layout.names)} matrices, {values:,} values"


def _check(form: Form, name: str, shape: Shape, parameters: Parameters) -> None:
    shapes = {p: tuple(t.shape) for p, t in parameters.items()}
    # The rank is what the parameters say it is, as long as all of them fit it and the matrix.
    ranks = [s[-1] for p, s in shapes.items() if p in ("up", "w1_a", "w2_a") and len(s) == 2]
    expected = form.shapes(shape, ranks[0] if ranks and ranks[0] > 0 else 1)
    if shapes != expected or any(t.dtype != torch.float16 for t in parameters.values()):
        raise ValueError(f"The {form.name} of {name} has {shapes}; expected float16 of {expected}.")
    if not all(bool(torch.isfinite(t).all()) for t in parameters.values()):
        raise ValueError(f"Some values of {name} are not finite.")
