"""What tells one family of Stable Diffusion models from another."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..projections import ProjectionLayout, find_projections


@dataclass(frozen=True)
class Family:
    """One family of models whose cross-attention can learn concepts.

    name: in memory files; title: for people; host_class: of its configuration in the host's supported models.
    text_width: of the features that its keys and values read.
    latent_factor: pixels along a side of a latent cell.
    least_side: pixels, below which what it draws falls apart; 0 where nothing is said of it.
    told_sizes: whether its U-Net is told how large a picture was and where it was cut.
    architecture, base_version: in `modelspec.architecture` and `ss_base_model_version`, for other tools.
    """

    name: str
    title: str
    host_class: str
    text_width: int
    architecture: str
    base_version: str
    latent_factor: int = 8
    told_sizes: bool = False
    least_side: int = 0

    def projections(self, shapes: Mapping[str, Iterable[int]]) -> ProjectionLayout:
        """The key and value matrices among a U-Net's weights (`name -> shape`);
        ValueError for another layout.
        """
        return find_projections(shapes)
