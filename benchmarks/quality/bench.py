"""One base model in this process, what is learned on it, and the judge of its pictures."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from cns_core.captions import CaptionRule
from cns_core.change_code import packed
from cns_core.concept import Concept
from cns_core.evaluation.clip_scores import ClipScorer
from cns_core.host.draw import Sampling, draw
from cns_core.host.join import join_memories
from cns_core.host.learn import Lesson, learn
from cns_core.host.personalize import personalize
from cns_core.host.prepare import prepare
from cns_core.host.types import Loaded
from cns_core.images import Bucketing, images_from_files
from cns_core.joining import JOININGS
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.method import Method
from cns_core.settings import TrainSettings
from devtools.concept_folders import ConceptFolder
from small_base.comfyui_nodes import load_small_base

from ..speed.memory import PeakMemory
from .fixed_noise import FixedNoise
from .judge import Judge
from .other_pictures import other_pictures
from .pictures import kept_in, kept_name, plain_name
from .prompts import plain_prompts, prompts_for
from .some_layers import SomeLayers
from .variants import VARIANTS


@dataclass(frozen=True)
class Options:
    """What a run is made with.

    checkpoint: of the small base.
    judge: a CLIP folder.
    output: the file of the runs.
    settings: of training, of selecting and of the methods, by name.
    """

    checkpoint: Path
    judge: Path
    resolution: int
    cfg: float
    output: Path
    settings: dict[str, Any]


class Bench:
    """Learns, draws and scores; `start_host` comes before."""

    def __init__(self, options: Options) -> None:
        self.options = options
        self.loaded = Loaded(*load_small_base(str(options.checkpoint)))

    def concept(self, folder: ConceptFolder) -> Concept:
        """The pictures of a folder as the loader node makes a concept of them."""
        rule = CaptionRule("txt files", folder.token, folder.class_word, folder.kind, each_line=True)
        images, _ = images_from_files(folder.pictures, rule, Bucketing(self.options.resolution))
        return Concept(folder.name, folder.token, folder.class_word, folder.kind, images)

    def learn(
        self,
        concept: Concept,
        memory: ConceptMemory | None,
        variant: str,
        seed: int,
        settings: Mapping[str, Any] | None = None,
        layers: str = "",
    ) -> tuple[ConceptMemory, dict[str, float]]:
        """The memory with one more concept, and how many weights may move (as a share of K/V, too, which is
        more than 1 where a method moves more than those), how long it took, what it keeps.

        settings: in place of the bench's own, as far as they name any.
        layers: that may move, by their labels (`places.py`); empty for all.
        """
        chosen = VARIANTS[variant]
        wanted = {"prior": chosen.method.prior, **self.options.settings, **(settings or {})}
        wanted |= {**chosen.fixed, "seed": seed}
        begin = time.perf_counter()
        loaded, selection = self.loaded, chosen.selection(wanted)
        method: Method = SomeLayers(chosen.method, layers) if layers else chosen.method
        plan = prepare(
            loaded.model, loaded.clip, concept, memory, method, selection, lambda done, total: None
        )
        plan = replace(plan, made_from=f"{plan.made_from} {layers}")  # or a result for all would be taken
        prepared = time.perf_counter() - begin
        train = TrainSettings(**{n: wanted[n] for n in TrainSettings().as_dict() if n in wanted})
        lesson = Lesson(
            loaded, concept, plan, memory, settings=train, method_settings=chosen.training(wanted)
        )
        with PeakMemory() as peak:
            done = learn(lesson)
        learned, spent = done.memory, time.perf_counter() - begin - prepared
        sizes = {name: out * width for name, (out, width), _ in plan.prepared.layout.slices()}
        moving = sum(share * sizes[name] for name, share in plan.prepared.moving().items())
        # What other variants have learned in the same way is taken from disk, and tells no costs.
        costs = {} if done.from_disk else {"training_s": round(spent, 1), "peak_mb": round(peak.megabytes)}
        return learned, {
            "neurons": round(moving),
            "share_of_kv": moving / learned.layout.total,
            "selection_s": round(prepared, 1),
            **costs,
            "bytes": size_of(learned.concepts[-1]),
        }

    def join(self, memories: Sequence[ConceptMemory], rule: str) -> tuple[ConceptMemory, dict[str, float]]:
        """One memory of concepts that were each learned alone, and how long it took."""
        begin, joining = time.perf_counter(), JOININGS[rule]
        with PeakMemory() as peak:
            joined, _ = join_memories(
                self.loaded.model,
                self.loaded.clip,
                memories,
                joining,
                joining.Settings(),
                lambda done, total: None,
            )
        took = round(time.perf_counter() - begin, 1)
        return joined.memory, {"joining_s": took, "peak_mb": round(peak.megabytes)}

    def look(self, memory: ConceptMemory, folders: Sequence[ConceptFolder]) -> dict[str, Any]:
        """The fit and the class drift of each concept by name, what its fit was under the class word, and the
        drift of prompts without a token (`fixed_noise.py`).
        """
        for folder in folders:
            if folder.name not in self._fixed_noise.names():
                self._fixed_noise.add(self.concept(folder))
        names = [folder.name for folder in folders]
        seen = self._fixed_noise.look(memory, names)
        class_word = {name: self._fixed_noise.class_word_error(name) for name in names}
        return {
            "fit": seen.fit,
            "fit_of_class_word": class_word,
            "class_drift": seen.class_drift,
            "drift": seen.drift,
        }

    @cached_property
    def _fixed_noise(self) -> FixedNoise:
        asked = self.options
        prompts, latents = other_pictures(self.loaded, asked.checkpoint, asked.resolution, asked.cfg)
        return FixedNoise(self.loaded, prompts, latents)

    def draw(self, memory: ConceptMemory | None, prompts: Sequence[str], seed: int) -> Tensor:
        """One picture for each prompt, (B, H, W, 3), all at once, which takes a fraction of the time."""
        loaded, side = self.loaded, self.options.resolution
        if memory is not None:
            drawn = personalize(loaded.model, loaded.clip, memory)
            loaded = Loaded(drawn.model, drawn.clip, loaded.vae)
        seeds = [seed * 1000 + index for index in range(len(prompts))]
        return draw(loaded, prompts, (side, side), seeds, Sampling(cfg=self.options.cfg))

    def score(
        self,
        folder: ConceptFolder,
        memory: ConceptMemory,
        variant: str,
        seed: int,
        others: Sequence[ConceptFolder] = (),
    ) -> dict[str, Any]:
        """Draw new pictures of a concept; what the judge says of them.

        others: concepts that it may be taken for.
        """
        drawn = self.draw(memory, prompts_for(folder.kind, folder.token), seed)
        self._keep(drawn, kept_name(folder.name, variant, seed, len(memory.concepts)))
        return self.judge.look(folder, drawn, others)

    @cached_property
    def scorer(self) -> ClipScorer:
        return ClipScorer.load(str(self.options.judge), "cpu")

    @cached_property
    def judge(self) -> Judge:
        return Judge(self.scorer, self._references, self._untouched)

    def _untouched(self, folder: ConceptFolder) -> Tensor:
        drawn = self.draw(None, plain_prompts(folder), 0)
        self._keep(drawn, plain_name(folder.name))
        return drawn

    def _references(self, folder: ConceptFolder) -> Tensor:
        return torch.stack([image.pixels for image in self.concept(folder).images])

    def _keep(self, pictures: Tensor, name: str) -> None:
        row = torch.cat(list(pictures), dim=1)
        folder = kept_in(self.options.output)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((row * 255).round().byte().numpy()).save(folder / name)


def size_of(learned: LearnedConcept) -> int:
    """Bytes of what a file keeps of a concept's weights and token."""
    tensors = [*packed(learned.change.tensors()).values(), *learned.token_vectors.values()]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
