"""Whether a training step on this device, in its own precision, goes where float32 on the CPU goes."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from cns_core.host.precision import FLOAT32, Precision
from cns_core.training import DIFFUSION

from .loops import random_latents, training_backend
from .models import HostModel, host_model
from .trainers import CAPTIONS, Task, trainer_for


def against_float32(loaded: HostModel, pixels: int, size: str) -> dict[str, float]:
    """One step of the same model, pictures, noise and captions here and there: the losses, the cosines of the
    angles between the two gradients of the neurons and of the token, and how far the captions' features are
    apart, relative to their norm, beside what rounding them to bfloat16 does.
    """
    loss, gradients, text = _step(loaded, pixels)
    with torch.inference_mode():
        plain = host_model(size, torch.device("cpu"))
    exact_loss, exact, exact_text = _step(plain, pixels, FLOAT32)
    cosines = [
        float(cosine_similarity(g.double(), e.double(), dim=0)) for g, e in zip(gradients, exact, strict=True)
    ]
    return {
        "loss": loss,
        "loss_fp32": exact_loss,
        "neuron_cosine": cosines[0],
        "token_cosine": cosines[1],
        "text_off": _apart(text, exact_text),
        "text_rounded": _apart(exact_text.bfloat16().float(), exact_text),
    }


def _apart(found: Tensor, exact: Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


def _step(
    loaded: HostModel, pixels: int, precision: Precision | None = None
) -> tuple[float, tuple[Tensor, Tensor], Tensor]:
    """The loss, the gradients of the neurons and of the token, and the captions' features."""
    losses: list[float] = []
    with training_backend(loaded, precision) as (backend, vectors):
        task = Task(loaded, random_latents(pixels), 2, 1)
        trainer = trainer_for(task, backend, vectors, "cns", "none")
        with backend.weights_patched({}), torch.no_grad():
            text = backend.encode(CAPTIONS, vectors).cross.cpu()
        trainer.run(lambda report: losses.append(report.losses[DIFFUSION]))
        neurons, tokens = (torch.cat([p.grad for p in group.parameters]) for group in trainer.groups)
        return losses[0], (neurons.cpu(), tokens.cpu()), text
