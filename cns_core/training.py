"""The training loop: learns one concept's token and whatever its method lets move, by minimising Eq. 8.

Everything random comes from one CPU generator, so the same seed gives the same result, and a run that was
stopped and resumed gives bit for bit what an uninterrupted one gives.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor

from .backend import DiffusionBackend
from .checkpoint import CheckpointError, TrainerState, check_alike, optimizer_state, restore_optimizer
from .framing import Framing, Framings
from .method import TOKEN, Adaptation, ParameterGroup
from .objective import Objective, OfPictures, prediction_error, total_loss
from .priors import KeptPools, NoisedBatch, PriorBatch
from .schedule import NoiseLevels, learning_rate_factor
from .settings import TrainSettings, clear_name
from .staged import Stage, StagedWeights
from .text_features import TextFeatures
from .tokens import TokenVectors


@dataclass(frozen=True, eq=False)
class LatentImage:
    """One training image.

    latents: scaled, `(C, h, w)`; captions: one is drawn for each step; class_captions: the same in the same
    order, with the class word in the token's place; mask: `(1, h, w)` or None; framing: what it was cut from,
    None where it is as drawn.
    """

    latents: Tensor
    captions: tuple[str, ...]
    class_captions: tuple[str, ...]
    mask: Tensor | None = None
    framing: Framing | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in latent cells."""
        return self.latents.shape[1], self.latents.shape[2]


@dataclass(frozen=True, eq=False)
class TrainingData:
    """Images of the concept, and what the prior needs.

    kept: pictures of what is to stay as it is, by latent size; before: W_{t-1} - W_0 `(out, text_dim)` of
    each weight that earlier concepts moved, where the prior asks what the model predicted then.
    """

    images: tuple[LatentImage, ...]
    kept: KeptPools = field(default_factory=dict)
    before: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class StepReport:
    """What `on_step` gets after each optimizer step (`step` counts from 1).

    loss: what was minimised; losses: its parts, before they are weighed; gradient_norms: of the token and of
    each group of parameters that the method has.
    """

    step: int
    steps: int
    loss: float
    losses: Mapping[str, float]
    gradient_norms: Mapping[str, float]
    seconds: float


OnStep = Callable[[StepReport], None]
StopAsked = Callable[[], bool]

DIFFUSION = "diffusion"  # the name of the concept's own loss

_ENCODED_AT_ONCE = 16  # prompts

# A copy of the whole state is kept this often, to go back to when the loss turns NaN or infinite.
_KEEP_GOOD_EVERY = 25


class TrainingDivergedError(RuntimeError):
    """The loss became NaN or infinite; the trainer stands at the last state that was kept as good."""


class ConceptTrainer:
    """Trains one concept. `run` may be left by any exception (`on_step` may raise to stop); `state()` is then
    that after the last whole step.

    Raises:
        ValueError: class images are missing, or every learning rate is 0.
        CheckpointError: `resume` belongs to another run; the adaptation is as it was.
    """

    def __init__(
        self,
        backend: DiffusionBackend,
        data: TrainingData,
        adaptation: Adaptation,
        token_vectors: TokenVectors,
        settings: TrainSettings,
        resume: TrainerState | None = None,
        objective: Objective | None = None,
    ) -> None:
        """token_vectors: none where something is erased; objective: None is to learn the pictures, with the
        prior of the settings.
        """
        objective = objective or Objective(OfPictures(), settings.chosen_prior())
        self.goal, self.prior = objective.goal, objective.prior
        self.prior.check_latents(data.kept, {image.size for image in data.images})
        self.backend, self.data, self.adaptation, self.settings = backend, data, adaptation, settings
        self.vectors = {
            n: v.detach().clone().float().to(backend.device).requires_grad_()
            for n, v in token_vectors.items()
        }
        token = ParameterGroup(TOKEN, "token_lr", settings.token_lr, list(self.vectors.values()))
        self.groups = [*adaptation.parameter_groups(), *([token] if self.vectors else [])]
        check_rates(self.groups)
        # Without weight decay, which would pull entries that no gradient asks to move.
        self.optimizer = torch.optim.Adam([{"params": list(g.parameters), "lr": g.rate} for g in self.groups])
        self.generator = torch.Generator("cpu").manual_seed(settings.seed)
        self.losses: dict[str, list[float]] = {}
        self._buckets: dict[tuple[int, int], list[int]] = {}
        for i, image in enumerate(data.images):
            self._buckets.setdefault(image.size, []).append(i)
        self._encoded: dict[str, TextFeatures] = {}
        if resume is not None:
            self._restore(resume)
        before = {name: change.to(backend.device) for name, change in data.before.items()}
        self.weights = StagedWeights(adaptation.weight_functions(), before)
        self._step_start = self.generator.get_state()
        self._last_good = self.state()

    @property
    def step(self) -> int:
        """Whole optimizer steps done."""
        return len(self.losses.get(DIFFUSION, ()))

    @property
    def bytes_to_come(self) -> int:
        """What the first step adds, in float32: gradients, Adam's two moments, and on a GPU what Adam takes
        meanwhile, since it moves all parameters at once there.
        """
        each = 12 if self.backend.device.type == "cpu" else 16
        return each * sum(p.numel() for group in self.groups for p in group.parameters)

    def run(self, on_step: OnStep | None = None, stop_asked: StopAsked | None = None) -> None:
        """Train from where the state stands to the last step, or to one after which `stop_asked` says that
        it was the last. It is asked after each step.

        Raises:
            TrainingDivergedError: the loss is no longer a number.
            BaseException: whatever `on_step` raises.
        """
        s = self.settings
        with self.backend.weights_patched(self.weights.functions()):
            while self.step < s.steps:
                begin = time.perf_counter()
                self.adaptation.before_step(self.step, s.steps, self)
                self._step_start = self.generator.get_state()
                self.optimizer.zero_grad(set_to_none=True)
                share = 1 / s.gradient_accumulation
                batches = [self._backward(share) for _ in range(s.gradient_accumulation)]
                means = torch.stack([torch.stack(list(batch.values())) for batch in batches]).mean(dim=0)
                norms = torch.stack([_gradient_norm(group) for group in self.groups])
                # Read back together: each time would be a wait for the GPU.
                loss, *numbers = torch.cat([means, norms]).tolist()
                if loss - loss != 0:
                    self._go_back(loss)
                if self.step % _KEEP_GOOD_EVERY == 0:
                    self._last_good = self.state()
                factor = learning_rate_factor(self.step, s.steps, s.lr_schedule, s.warmup_steps)
                own = self.adaptation.rate_factors(self.step, s.steps)
                for group, of_optimizer in zip(self.groups, self.optimizer.param_groups, strict=True):
                    of_optimizer["lr"] = group.rate * factor * own.get(group.name, 1.0)
                self.optimizer.step()
                names = [*list(batches[0])[1:], *(group.name for group in self.groups)]
                found = dict(zip(names, numbers, strict=True))
                norms_of = {group.name: found.pop(group.name) for group in self.groups}
                for name, value in found.items():
                    self.losses.setdefault(name, []).append(value)
                self._step_start = self.generator.get_state()
                if on_step is not None:
                    seconds = time.perf_counter() - begin
                    on_step(StepReport(self.step, s.steps, loss, found, norms_of, seconds))
                if stop_asked is not None and stop_asked():
                    break
        with torch.no_grad():
            self.adaptation.before_forward()

    def state(self) -> TrainerState:
        """All that a later trainer needs to go on bit for bit, as of the last whole step; tensors are copies
        on the CPU.
        """
        return TrainerState(
            adaptation=self.adaptation.state_dict(),
            token_vectors={n: v.detach().cpu().clone() for n, v in self.vectors.items()},
            optimizer=optimizer_state(self.optimizer, self._parameter_names()),
            generator=self._step_start.clone(),
            losses={name: tuple(values) for name, values in self.losses.items()},
        )

    # What an adaptation may ask for (`method.Probe`).

    def caption_features(self) -> TextFeatures:
        """The concept's captions, each once, with the token as it stands; without a gradient."""
        return self.features(list(dict.fromkeys(c for image in self.data.images for c in image.captions)))

    def features(self, prompts: Sequence[str]) -> TextFeatures:
        """Any prompts, read in the same way."""
        parts = [prompts[i : i + _ENCODED_AT_ONCE] for i in range(0, len(prompts), _ENCODED_AT_ONCE)]
        with torch.no_grad():
            return TextFeatures.concatenated(
                [self.backend.encode(part, self.vectors).detached() for part in parts]
            )

    # What a prior may ask for (`priors.Teacher`).

    @property
    def levels(self) -> NoiseLevels:
        return self.backend.levels

    @property
    def kept(self) -> KeptPools:
        return self.data.kept

    def frozen_text(self, prompts: Sequence[str]) -> TextFeatures:
        """Prompts without the token never change: each is encoded once."""
        for prompt in prompts:
            if prompt not in self._encoded:
                with torch.no_grad():
                    self._encoded[prompt] = self.backend.encode([prompt], None).detached()
        return TextFeatures.concatenated([self._encoded[p] for p in prompts])

    def untrained_prediction(self, z_t: Tensor, t: Tensor, text: TextFeatures, framings: Framings) -> Tensor:
        return self._prediction_of(Stage.UNTOUCHED, z_t, t, text, framings)

    def earlier_prediction(self, z_t: Tensor, t: Tensor, text: TextFeatures, framings: Framings) -> Tensor:
        return self._prediction_of(Stage.BEFORE, z_t, t, text, framings)

    def _prediction_of(
        self, stage: Stage, z_t: Tensor, t: Tensor, text: TextFeatures, framings: Framings
    ) -> Tensor:
        with self.weights.shown(stage), torch.no_grad():
            return self.backend.predict(z_t, t, text, framings)

    def pick(self, below: int) -> int:
        """A random whole number from the run's generator."""
        return int(torch.randint(below, (1,), generator=self.generator))

    def _parameter_names(self) -> list[str]:
        return [f"{group.name}.{i}" for group in self.groups for i in range(len(group.parameters))]

    def _check(self, state: TrainerState) -> None:
        """CheckpointError unless the state may be one of this run."""
        check_alike(state.token_vectors, self.vectors, "the token's vectors")
        check_alike({"state": state.generator}, {"state": self.generator.get_state()}, "the generator")
        parameters = [p for group in self.groups for p in group.parameters]
        moments: dict[str, Tensor] = {}
        for name, parameter in zip(self._parameter_names(), parameters, strict=True):
            of_adam = {"step": torch.tensor(0.0), "exp_avg": parameter, "exp_avg_sq": parameter}
            if f"{name}.step" in state.optimizer:  # a parameter without a gradient so far has none
                moments |= {f"{name}.{moment}": value for moment, value in of_adam.items()}
        check_alike(state.optimizer, moments, "Adam's moments")
        done = {len(values) for values in state.losses.values()}
        named = not done or DIFFUSION in state.losses
        if not named or len(done) > 1 or max(done, default=0) > self.settings.steps:
            raise CheckpointError(
                f"The checkpoint belongs to another run: its losses are of {sorted(done)} steps, expected "
                f"one number, and at most {self.settings.steps}."
            )

    def _restore(self, state: TrainerState) -> None:
        self._check(state)
        self.adaptation.load_state_dict(state.adaptation)
        with torch.no_grad():
            for name, vector in self.vectors.items():
                vector.copy_(state.token_vectors[name])
        restore_optimizer(self.optimizer, self._parameter_names(), state.optimizer)
        self.generator.set_state(state.generator)
        self.losses = {name: list(values) for name, values in state.losses.items()}

    def _backward(self, share: float) -> dict[str, Tensor]:
        """One micro-batch: forward, loss, backward. Gives the whole loss and then its parts, detached."""
        s, levels = self.settings, self.levels
        picks = self._pick_images()
        images = [self.data.images[i] for i, _ in picks]
        batch = self._noised(images, [caption for _, caption in picks])
        prior = self.prior.batch(batch, self)
        target = self.goal.target(batch, self)

        self.adaptation.before_forward()
        text = self._text(batch.captions)
        prediction, prior_prediction = self._predictions(batch, text, prior)
        # The prior shares the concept's noise levels, and so their weights.
        weight = levels.min_snr_weight(batch.t, s.min_snr_gamma)
        losses = {DIFFUSION: (prediction_error(prediction, target, self._masks(images)) * weight).mean()}
        if prior is not None and prior_prediction is not None:
            losses[self.prior.loss] = (prediction_error(prior_prediction, prior.target) * weight).mean()
        penalties = self.adaptation.penalties()
        total = total_loss(losses[DIFFUSION], losses.get(self.prior.loss), s.prior_weight, penalties)
        (total * share).backward()
        return {n: loss.detach() for n, loss in {"": total, **losses, **penalties}.items()}

    def _noised(self, images: Sequence[LatentImage], captions: Sequence[int]) -> NoisedBatch:
        device = self.backend.device
        z0 = torch.stack([i.latents for i in images]).to(device)
        noise = torch.randn(z0.shape, generator=self.generator).to(device)
        t = torch.randint(len(self.levels), (len(z0),), generator=self.generator).to(device)
        return NoisedBatch(
            [image.captions[c] for image, c in zip(images, captions, strict=True)],
            [image.class_captions[c] for image, c in zip(images, captions, strict=True)],
            z0,
            noise,
            t,
            self.levels.add_noise(z0, noise, t),
            [image.framing for image in images],
        )

    def _text(self, captions: Sequence[str]) -> TextFeatures:
        """Captions with the token; one that several pictures of a batch share is encoded once."""
        if not self.vectors:
            return self.frozen_text(captions)
        unique = list(dict.fromkeys(captions))
        encoded = self.backend.encode(unique, self.vectors)
        return encoded.rows([unique.index(caption) for caption in captions])

    def _predictions(
        self, batch: NoisedBatch, text: TextFeatures, prior: PriorBatch | None
    ) -> tuple[Tensor, Tensor | None]:
        """The concept's half and the prior's, in one pass."""
        if prior is None:
            return self.backend.predict(batch.z_t, batch.t, text, batch.framings), None
        both = self.backend.predict(
            torch.cat([batch.z_t, prior.z_t]),
            torch.cat([batch.t, batch.t]),
            TextFeatures.concatenated([text, prior.text]),
            [*batch.framings, *prior.framings],
        )
        concept, class_ = both.chunk(2)
        return concept, class_

    def _pick_images(self) -> list[tuple[int, int]]:
        """Images of one batch, all of one latent size, as (image, caption) numbers."""
        first = self.pick(len(self.data.images))
        bucket = self._buckets[self.data.images[first].size]
        chosen = [first] + [bucket[self.pick(len(bucket))] for _ in range(self.settings.batch_size - 1)]
        return [(i, self.pick(len(self.data.images[i].captions))) for i in chosen]

    def _masks(self, images: Sequence[LatentImage]) -> Tensor | None:
        if not self.settings.masked_loss:
            return None
        masks = [torch.ones_like(i.latents[:1]) if i.mask is None else i.mask for i in images]
        return torch.stack(masks).to(self.backend.device)

    def _go_back(self, loss: float) -> NoReturn:
        failed = self.step + 1
        self._restore(self._last_good)
        self._step_start = self.generator.get_state()
        rates = " or ".join(f"the {clear_name(g.setting)} (now {g.rate:g})" for g in self.groups if g.rate)
        raise TrainingDivergedError(
            f"The loss became {loss} at step {failed} of {self.settings.steps}; the concept was put back to "
            f"where it stood after step {self.step}, which was good. Lower {rates}, e.g. to a third, or use "
            "warm-up steps."
        )


def check_rates(groups: Sequence[ParameterGroup]) -> None:
    """ValueError when nothing would be learned."""
    if not any(group.rate for group in groups):
        settings = " or ".join(f"the {clear_name(group.setting)}" for group in groups)
        raise ValueError(f"Every learning rate is 0, so nothing would be learned; set {settings} above 0.")


def _gradient_norm(group: ParameterGroup) -> Tensor:
    squares = [p.new_zeros(()) if p.grad is None else p.grad.square().sum() for p in group.parameters]
    return torch.stack(squares).sum().sqrt()
