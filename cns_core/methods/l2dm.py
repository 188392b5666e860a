"""L2DM (2309.04430), a lifelong diffusion model: all of K/V move, and what was learned is replayed.

Its memory enhancement and its distillation are the prior that goes with it (`priors.Replay`): pictures of the
class and of every earlier concept keep the model where the stage before had it,

    L = L_diffusion + prior_weight mean ||eps_t(x, c) - eps_{t-1}(x, c)||^2.

The paper keeps pictures in a bank, the user's own among them, and chooses diverse ones. A memory here keeps
no pictures: all of them are drawn by the stage before, by the captions of each concept in turn. What it does
to attention while drawing is left out: one model draws everything.
"""

from __future__ import annotations

from .dense_kv import DenseKv


class L2dm(DenseKv):
    """All of K/V, with replay."""

    name = "l2dm"
    prior = "replay"
