"""A method that may move some attention layers alone, by what it is shown of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from cns_core.method import Material, Method, Prepared
from cns_core.places import in_places, places_of
from cns_core.projections import ProjectionLayout


class SomeLayers:
    """A method, everything its own but what it prepares with.

    layers: labels of `places.py`, with commas between.
    """

    def __init__(self, method: Method, layers: str) -> None:
        self._method, self._layers = method, layers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._method, name)

    def prepare(self, material: Material, settings: Any) -> Prepared:
        return self._method.prepare(_Part(material, self._layers), settings)


class _Part:
    """A `Material` without the weights of other layers."""

    def __init__(self, material: Material, layers: str) -> None:
        self._material, self._layers = material, layers
        self.layout = self._chosen(material.layout)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._material, name)

    def weights_in(self, scope: str) -> ProjectionLayout:
        return self._chosen(self._material.weights_in(scope))

    def weights(self, layout: ProjectionLayout | None = None) -> Mapping[str, Tensor]:
        found = self._material.weights(layout)
        return found if layout is not None else {name: found[name] for name in self.layout.names}

    def _chosen(self, weights: ProjectionLayout) -> ProjectionLayout:
        return weights.only(in_places(places_of(self._material.layout, weights), self._layers))
