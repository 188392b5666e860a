"""The training loop: learns one concept's packed values and token vectors by minimising Eq. 8.

Everything random comes from one CPU generator, so the same seed gives the same result, and a run that was
stopped and resumed gives bit for bit what an uninterrupted one gives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor

from .adam import Adam
from .backend import DiffusionBackend, TextFeatures
from .checkpoint import TrainerState, adam_state, restore_adam
from .delta import PackedDelta
from .objective import LossParts, combine, prediction_error, regularisation
from .schedule import learning_rate_factor
from .settings import TrainSettings
from .tokens import TokenVectors


@dataclass(frozen=True, eq=False)
class LatentImage:
    """One training image: scaled latents `(C, h, w)`, its captions (one is drawn per step), a mask `(1, h,
    w)` or None.

    class_captions: the same captions with the token replaced by the class word, in the same order.
    """

    latents: Tensor
    captions: tuple[str, ...]
    class_captions: tuple[str, ...]
    mask: Tensor | None = None


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Latents of the concept, and of class images where the prior uses them: one tensor `(n, C, h, w)` per
    latent size.
    """

    images: tuple[LatentImage, ...]
    class_prompt: str = ""
    class_latents: dict[tuple[int, int], Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class StepReport:
    """What `on_step` gets after each optimizer step (`step` counts from 1)."""

    step: int
    steps: int
    loss: float
    diffusion: float
    prior: float
    regularisation: float
    neuron_grad_norm: float
    token_grad_norm: float
    seconds: float


OnStep = Callable[[StepReport], None]


# A copy of the whole state is kept this often, to go back to when the loss turns NaN or infinite.
_KEEP_GOOD_EVERY = 25


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite; the trainer stands at the last state that was kept as good."""


class ConceptTrainer:
    """Trains one concept. `run` may be left by any exception (`on_step` may raise to stop); `state()` is
    then the last whole step.
    """

    def __init__(
        self,
        backend: DiffusionBackend,
        data: TrainingData,
        delta: PackedDelta,
        token_vectors: TokenVectors,
        settings: TrainSettings,
        resume: TrainerState | None = None,
    ) -> None:
        if settings.uses_prior and "class images" in settings.prior:
            sizes = {(i.latents.shape[1], i.latents.shape[2]) for i in data.images}
            missing = sorted(sizes - set(data.class_latents))
            if missing:
                raise ValueError(
                    f"The prior needs class images of latent sizes {missing}; give some for each size."
                )
        self.backend, self.data, self.delta, self.settings = backend, data, delta, settings
        self.vectors = {
            n: v.detach().clone().float().to(backend.device).requires_grad_()
            for n, v in token_vectors.items()
        }
        # Without weight decay, which would pull entries that no gradient asks to move.
        self.optimizer = Adam(
            [
                {"params": [delta.values], "lr": settings.neuron_lr},
                {"params": list(self.vectors.values()), "lr": settings.token_lr},
            ]
        )
        self._rates = (settings.neuron_lr, settings.token_lr)
        self.generator = torch.Generator("cpu").manual_seed(settings.seed)
        self.losses: list[tuple[float, float, float]] = []
        self._buckets: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(data.images):
            self._buckets.setdefault((image.latents.shape[1], image.latents.shape[2]), []).append(i)
        self._encoded: dict[str, TextFeatures] = {}
        if resume is not None:
            self._restore(resume)
        self._step_start = self.generator.get_state()
        self._last_good = self.state()

    @property
    def step(self) -> int:
        """Whole optimizer steps done."""
        return len(self.losses)

    def run(self, on_step: OnStep | None = None) -> None:
        """Train from where the state stands to the last step. Raises TrainingDivergedError, and whatever
        `on_step` raises.
        """
        s = self.settings
        functions = {name: self.delta.weight_function(name) for name in self.delta.layout.names}
        with self.backend.hung(functions):
            while self.step < s.steps:
                begin = time.perf_counter()
                self._step_start = self.generator.get_state()
                self.optimizer.zero_grad(set_to_none=True)
                parts = [self._backward(1 / s.gradient_accumulation) for _ in range(s.gradient_accumulation)]
                means = torch.stack([torch.stack(p) for p in parts]).mean(dim=0)
                # Read back together: each time would be a wait for the GPU.
                numbers = torch.cat([means, self._gradient_norms()]).tolist()
                if numbers[0] - numbers[0] != 0:
                    self._go_back(numbers[0])
                if self.step % _KEEP_GOOD_EVERY == 0:
                    self._last_good = self.state()
                factor = learning_rate_factor(self.step, s.steps, s.lr_schedule, s.warmup_steps)
                for group, rate in zip(self.optimizer.param_groups, self._rates, strict=True):
                    group["lr"] = rate * factor
                self.optimizer.step()
                self.losses.append((numbers[1], numbers[2], numbers[3]))
                self._step_start = self.generator.get_state()
                if on_step is not None:
                    on_step(self._report(numbers, time.perf_counter() - begin))
        with torch.no_grad():
            self.delta.update()

    def state(self) -> TrainerState:
        """All that a later trainer needs to go on bit for bit, as of the last whole step; tensors are copies
        on the CPU.
        """
        return TrainerState(
            values=self.delta.values.detach().cpu().clone(),
            token_vectors={n: v.detach().cpu().clone() for n, v in self.vectors.items()},
            optimizer=adam_state(self.optimizer, ["values", *self.vectors]),
            generator=self._step_start.clone(),
            losses=tuple(self.losses),
        )

    def _report(self, numbers: list[float], seconds: float) -> StepReport:
        loss, diffusion, prior, regular, neuron_norm, token_norm = numbers
        return StepReport(
            step=self.step,
            steps=self.settings.steps,
            loss=loss,
            diffusion=diffusion,
            prior=prior,
            regularisation=regular,
            neuron_grad_norm=neuron_norm,
            token_grad_norm=token_norm,
            seconds=seconds,
        )

    def _gradient_norms(self) -> Tensor:
        """Of the neurons and of the token's vectors, `(2,)`."""
        return torch.stack([_norm([self.delta.values]), _norm(list(self.vectors.values()))])

    def _restore(self, state: TrainerState) -> None:
        if state.values.shape != self.delta.values.shape or set(state.token_vectors) != set(self.vectors):
            raise ValueError(
                f"The checkpoint holds {len(state.values):,} values for {len(self.delta.values):,} neurons; "
                "it belongs to "
                "another selection. Delete it to start anew."
            )
        with torch.no_grad():
            self.delta.values.copy_(state.values)
            for name, vector in self.vectors.items():
                vector.copy_(state.token_vectors[name])
        restore_adam(self.optimizer, ["values", *self.vectors], state.optimizer)
        self.generator.set_state(state.generator)
        self.losses = list(state.losses)

    def _backward(self, share: float) -> LossParts:
        """One micro-batch: forward, loss, backward; returns detached parts."""
        s, levels, device = self.settings, self.backend.levels, self.backend.device
        picks = self._pick()
        images = [self.data.images[i] for i, _ in picks]
        z0 = torch.stack([i.latents for i in images]).to(device)
        noise = torch.randn(z0.shape, generator=self.generator).to(device)
        t = torch.randint(len(levels), (len(z0),), generator=self.generator).to(device)
        z_t = levels.add_noise(z0, noise, t)
        prior_z, prior_target, prior_text = self._prior_batch(picks, z0, z_t, noise, t)

        self.delta.update()
        unique = list(dict.fromkeys(i.captions[c] for i, (_, c) in zip(images, picks, strict=True)))
        encoded = self.backend.encode(unique, self.vectors)
        rows = [unique.index(i.captions[c]) for i, (_, c) in zip(images, picks, strict=True)]
        text = TextFeatures(
            encoded.cross[rows],
            None if encoded.pooled is None else encoded.pooled[rows],
            encoded.is_word[rows],
        )
        if prior_z is None or prior_text is None:
            prediction, prior_error = self.backend.predict(z_t, t, text), None
        else:
            both = self.backend.predict(
                torch.cat([z_t, prior_z]), torch.cat([t, t]), TextFeatures.stack([text, prior_text])
            )
            prediction, prior_prediction = both.chunk(2)
            prior_error = prediction_error(prior_prediction, prior_target)
        error = prediction_error(prediction, levels.target(z0, noise, t), self._masks(images))
        regular = regularisation(
            self.delta.values, self.delta.start, self.delta.shared, s.keep_earlier, s.keep_base
        )
        parts = combine(
            error, levels.min_snr_weight(t, s.min_snr_gamma), prior_error, s.prior_weight, regular
        )
        (parts.total * share).backward()
        return LossParts(*(p.detach() for p in parts))

    def _pick(self) -> list[tuple[int, int]]:
        """Images of one batch, all of one latent size, as (image, caption) numbers."""
        first = self._draw(len(self.data.images))
        latents = self.data.images[first].latents
        bucket = self._buckets[(latents.shape[1], latents.shape[2])]
        chosen = [first] + [bucket[self._draw(len(bucket))] for _ in range(self.settings.batch_size - 1)]
        return [(i, self._draw(len(self.data.images[i].captions))) for i in chosen]

    def _draw(self, below: int) -> int:
        return int(torch.randint(below, (1,), generator=self.generator))

    def _prior_batch(
        self, picks: Sequence[tuple[int, int]], z0: Tensor, z_t: Tensor, noise: Tensor, t: Tensor
    ) -> tuple[Tensor | None, Tensor, TextFeatures | None]:
        """Noised latents, target and text of the prior: class images (DreamBooth), or the frozen model's own
        prediction for the class caption on the same noised latents (image-free)."""
        s, levels = self.settings, self.backend.levels
        if not s.uses_prior:
            return None, z_t, None
        if s.prior == "image-free":
            text = self._frozen_text([self.data.images[i].class_captions[c] for i, c in picks])
            self.delta.enabled = False
            try:
                with torch.no_grad():
                    target = self.backend.predict(z_t, t, text)
            finally:
                self.delta.enabled = True
            return z_t, target, text
        pool = self.data.class_latents[(z0.shape[2], z0.shape[3])]
        z_class = torch.stack([pool[self._draw(len(pool))] for _ in picks]).to(z0.device)
        text = self._frozen_text([self.data.class_prompt] * len(picks))
        return levels.add_noise(z_class, noise, t), levels.target(z_class, noise, t), text

    def _frozen_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Prompts without the token never change: each is encoded once."""
        for prompt in prompts:
            if prompt not in self._encoded:
                with torch.no_grad():
                    self._encoded[prompt] = self.backend.encode([prompt], None).detached()
        return TextFeatures.stack([self._encoded[p] for p in prompts])

    def _masks(self, images: Sequence[LatentImage]) -> Tensor | None:
        if not self.settings.masked_loss:
            return None
        masks = [torch.ones_like(i.latents[:1]) if i.mask is None else i.mask for i in images]
        return torch.stack(masks).to(self.backend.device)

    def _go_back(self, loss: float) -> NoReturn:
        failed = self.step + 1
        self._restore(self._last_good)
        self._step_start = self.generator.get_state()
        s = self.settings
        raise TrainingDivergedError(
            f"The loss became {loss} at step {failed} of {s.steps}; the concept was put back to where it "
            "stood after step "
            f"{self.step}, which was good. Lower neuron_lr (now {s.neuron_lr:g}) or token_lr (now "
            f"{s.token_lr:g}), e.g. to a "
            "third, or use warm-up steps."
        )


def _norm(parameters: Sequence[Tensor]) -> Tensor:
    return torch.stack([p.grad.square().sum() for p in parameters if p.grad is not None]).sum().sqrt()
