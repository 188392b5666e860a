"""Low-rank changes of keys and values, one concept after another: how the field keeps them apart."""

from .cidm import Cidm
from .continual import ByMagnitude, Merged, MergedOrthogonal, Naive
from .continual_diffusion import ContinualDiffusion
from .orthogonal_adaptation import OrthogonalAdaptation

LOW_RANK = (
    OrthogonalAdaptation(),
    ContinualDiffusion(),
    Naive(),
    Merged(),
    MergedOrthogonal(),
    ByMagnitude(),
    Cidm(),
)

__all__ = ["LOW_RANK"]
