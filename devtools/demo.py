"""`dev.py demo`: learns concepts one after another in a real host and draws all of them after each."""

from __future__ import annotations

import io
import json
import re
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageOps

from cns_core.evaluation.sheets import Cell, captioned, quartered, stacked

from .api_client import ApiClient, Graph
from .concept_folders import ConceptFolder, halves_for_two, pairs, prompts_for_two, read_concepts
from .errors import DevToolError
from .graphs import add, exchange, find, find_one, keep_only, override, read_graph, wired_from
from .host_process import HostProcess
from .paths import ROOT
from .staging import DEMO_CONCEPTS, SHIPPED_CONCEPTS, stage_checkpoint, stage_clip, stage_images

WORKFLOWS = ROOT / "workflows" / "api"
MEMORY_NAME = "cns_demo"
# The small base's own loader leaves out the text layers that it does not have.
STOCK_LOADER, SMALL_LOADER = "CheckpointLoaderSimple", "LoadSmallBase"
SEED = 1
_TELL_EVERY = 10.0  # seconds

# The small base, minutes on two cores: the settings of benchmarks/quality with a third more steps.
SMALL_RESOLUTION, SMALL_GUIDANCE = 64, 3.0
SMALL_TRAINING = {"steps": 200, "batch_size": 4, "token_lr": 1e-2}
REAL_RESOLUTION = 512
REAL_TRAINING = {"steps": 500, "batch_size": 1}  # all else as the workflow has it
REAL_PICTURES = 1  # for each concept after each stage: one takes long enough without a GPU

PHOTOS_ON_SMALL_BASE = (
    "No --checkpoint was given: the small base model knows emoji scenes of 64 pixels alone, so photos show "
    "that everything runs, not how well they are learned."
)
SCORES_OF_PHOTOS = (
    "No --clip-model was given: the small judge knows emoji scenes alone, "
    "so its scores of other pictures mean nothing."
)


@dataclass(frozen=True)
class DemoOptions:
    """The command line's words; None stands for the default that fits the checkpoint."""

    checkpoint: Path | None
    concepts: Path | None
    steps: int | None
    resolution: int | None
    clip_model: str | None
    output: Path


@dataclass(frozen=True)
class Score:
    """What CLIPScore said about the pictures of one cell."""

    stage: int
    concept: str
    prompt: str  # of the first picture
    pictures: int
    clip_i: float
    clip_t: float


class Demo:
    """One run against one host."""

    def __init__(
        self, host: HostProcess, client: ApiClient, options: DemoOptions, names: tuple[str, str]
    ) -> None:
        small = options.checkpoint is None
        self.host, self.client = host, client
        self.loader = SMALL_LOADER if small else STOCK_LOADER
        self.checkpoint, self.clip_model = names
        self.training = {**(SMALL_TRAINING if small else REAL_TRAINING), "seed": SEED}
        if options.steps:
            self.training["steps"] = options.steps
        self.sampling = {"cfg": SMALL_GUIDANCE} if small else {}
        self.resolution = options.resolution or (SMALL_RESOLUTION if small else REAL_RESOLUTION)
        self.pictures = None if small else REAL_PICTURES

    def learn(self, concept: ConceptFolder, first: bool) -> Image.Image:
        """Train one concept into the memory file; gives back its loss curve."""
        graph = read_graph(WORKFLOWS / ("learn_concept.json" if first else "add_concept.json"))
        graph = self.fitted(graph)
        graph = override(graph, "LoadConceptImages", **self._concept_inputs(concept))
        graph = override(graph, "ContinualTrain", **self.training, preview_every=0)
        graph = override(graph, "SaveConceptMemory", filename=MEMORY_NAME)
        graph = override(graph, "LoadConceptMemory", file=f"{MEMORY_NAME}.safetensors")
        train, save = find_one(graph, "ContinualTrain"), find_one(graph, "SaveConceptMemory")
        graph = add(graph, "demo_curve", "SaveImage", images=[train, 1], filename_prefix="curve")
        return self._picture(keep_only(graph, save, "demo_curve"), "demo_curve", _Told(train))

    def draw(self, prompts: Sequence[str], with_memory: bool = True) -> list[Image.Image]:
        """One picture for each prompt, by the model with the memory file applied, or by the untouched one."""
        model, pictures = "ApplyPersonalizedUNet" if with_memory else self.loader, []
        for index, prompt in enumerate(prompts[: self.pictures]):
            graph = self._drawing(SEED + index)
            sampler = _sampler(graph, model, "CLIPTextEncode")
            graph[wired_from(graph, sampler, "positive")]["inputs"]["text"] = prompt
            pictures.append(self._sampled(graph, sampler))
        return pictures

    def draw_halves(self, halves: Sequence[tuple[str, str]]) -> list[Image.Image]:
        """With the memory file applied, a picture for each pair of prompts, of its left and right half."""
        pictures = []
        for index, texts in enumerate(halves[: self.pictures]):
            graph = self._drawing(SEED + index)
            sampler = _sampler(graph, "ApplyPersonalizedUNet", "ConditioningCombine")
            joined = wired_from(graph, sampler, "positive")
            for text, socket in zip(texts, ("conditioning_1", "conditioning_2"), strict=True):
                area = wired_from(graph, joined, socket)
                graph[wired_from(graph, area, "conditioning")]["inputs"]["text"] = text
            pictures.append(self._sampled(graph, sampler))
        return pictures

    def _drawing(self, seed: int) -> Graph:
        graph = self.fitted(read_graph(WORKFLOWS / "draw_concepts.json"))
        graph = override(graph, "LoadConceptMemory", file=f"{MEMORY_NAME}.safetensors")
        return override(graph, "KSampler", seed=seed, **self.sampling)

    def _sampled(self, graph: Graph, sampler: str) -> Image.Image:
        decode = next(n for n in find(graph, "VAEDecode") if wired_from(graph, n, "samples") == sampler)
        graph = add(graph, "demo_drawing", "SaveImage", images=[decode, 0], filename_prefix="drawing")
        return self._picture(keep_only(graph, "demo_drawing"), "demo_drawing")

    def score(
        self, stage: int, pictures: list[Image.Image], prompts: Sequence[str], concepts: list[ConceptFolder]
    ) -> Score:
        """CLIP-I against the concepts' photos and CLIP-T against the prompts, means over the pictures."""
        figures = [self._scored(*pair, concepts) for pair in zip(pictures, prompts, strict=False)]
        clip_i, clip_t = (sum(values) / len(figures) for values in zip(*figures, strict=True))
        names = " + ".join(concept.name for concept in concepts)
        return Score(stage, names, prompts[0], len(figures), clip_i, clip_t)

    def _scored(
        self, picture: Image.Image, prompt: str, concepts: list[ConceptFolder]
    ) -> tuple[float, float]:
        picture.save(self.host.base / "input" / "demo_drawn.png")
        template = read_graph(WORKFLOWS / "learn_concept.json")
        loader = template[find_one(template, "LoadConceptImages")]
        graph: Graph = {}
        for index, concept in enumerate(concepts):
            inputs = {**loader["inputs"], **self._concept_inputs(concept)}
            graph = add(graph, f"concept{index}", "LoadConceptImages", **inputs)
        graph = add(graph, "picture", "LoadImage", image="demo_drawn.png")
        sockets = {
            f"concept{'' if i == 0 else f'_{i + 1}'}": [f"concept{i}", 0] for i in range(len(concepts))
        }
        inputs = {"image": ["picture", 0], "prompt": prompt, "clip_model": self.clip_model, **sockets}
        graph = add(graph, "score", "CLIPScore", **inputs)
        return _figures(" ".join(self.client.run(graph)["score"]["text"]))

    def fitted(self, graph: Graph) -> Graph:
        """A bundled workflow with the demo's checkpoint and size."""
        graph = override(graph, STOCK_LOADER, ckpt_name=self.checkpoint)
        graph = exchange(graph, STOCK_LOADER, self.loader)
        return override(graph, "EmptyLatentImage", width=self.resolution, height=self.resolution)

    def _concept_inputs(self, concept: ConceptFolder) -> dict[str, str | int]:
        return {
            "name": concept.name,
            "token": concept.token,
            "class_word": concept.class_word,
            "kind": concept.kind,
            "caption_source": concept.caption_source,
            "caption_file": "a caption a line",
            "folder": concept.folder.name,
            "resolution": self.resolution,
        }

    def _picture(self, graph: Graph, node_id: str, on_progress: _Told | None = None) -> Image.Image:
        outputs = self.client.run(graph, timeout=24 * 3600.0, on_progress=on_progress)
        return Image.open(io.BytesIO(self.client.view(outputs[node_id]["images"][0])))


class _Told:
    """Tells every few seconds how far a graph is.

    training: the node whose progress is steps; that of others is of what they prepare.
    """

    def __init__(self, training: str) -> None:
        self._training, self._last = training, time.monotonic()

    def __call__(self, node: str, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._last < _TELL_EVERY or done >= total:
            return
        self._last = now
        _say(f"  {'step' if node == self._training else 'preparing,'} {done} of {total}")


def run_demo(options: DemoOptions) -> int:
    """Run it all and write the results; gives back an exit code."""
    started = time.monotonic()
    if options.concepts is None:
        concepts = read_concepts(SHIPPED_CONCEPTS, DEMO_CONCEPTS)
    else:
        concepts = read_concepts(options.concepts)
    output = options.output.expanduser().resolve()
    output.mkdir(parents=True, exist_ok=True)
    emoji = options.checkpoint is None and options.concepts is None
    warnings = [PHOTOS_ON_SMALL_BASE] if options.checkpoint is None and not emoji else []
    warnings += [SCORES_OF_PHOTOS] if options.clip_model is None and not emoji else []
    if warnings:
        print("\n".join(warnings), flush=True)

    host = HostProcess()
    names = (stage_checkpoint(host.base, options.checkpoint), stage_clip(host.base, options.clip_model))
    stage_images(host.base, [concept.folder for concept in concepts])
    print("[demo] starting ComfyUI", flush=True)
    with host, ApiClient(host.url) as client:
        demo = Demo(host, client, options, names)
        curves, rows, scores = _learn_and_draw(demo, concepts)
        memory = host.base / "models" / "concept_memory" / f"{MEMORY_NAME}.safetensors"
        shutil.copy2(memory, output / memory.name)

    captioned(rows).save(output / "grid.png")
    stacked(curves).save(output / "loss_curves.png")
    _write_scores(output, scores, warnings)
    seconds = time.monotonic() - started
    print(f"\nDone in {seconds:.0f} s. In {output}:")
    for name in ("grid.png", "loss_curves.png", memory.name, "scores.md", "scores.json"):
        print(f"  {name}")
    for warning in warnings:
        print(warning)
    return 0


def _learn_and_draw(
    demo: Demo, concepts: list[ConceptFolder]
) -> tuple[list[Image.Image], list[list[Cell]], list[Score]]:
    """Learn each concept and draw all learned so far: loss curves, the grid's rows, scores."""
    rows: list[list[Cell]] = []
    for concept in concepts:
        _say(f"untouched model: {concept.plain_prompts[0]}")
        before = demo.draw(concept.plain_prompts, with_memory=False)
        given = [Image.open(path).convert("RGB") for path in concept.pictures[: len(before)]]
        rows.append(
            [
                (f"{concept.token}: given", quartered([ImageOps.fit(one, given[0].size) for one in given])),
                (f"untouched: {concept.class_word}", quartered(before)),
            ]
        )
    curves: list[Image.Image] = []
    scores: list[Score] = []
    for stage, new in enumerate(concepts, start=1):
        _say(f"stage {stage}: learning {new.token}, {demo.training['steps']} steps at {demo.resolution} px")
        curves.append(demo.learn(new, first=stage == 1))
        for row, concept in zip(rows, concepts, strict=True):
            if concept not in concepts[:stage]:
                row.append((f"stage {stage}: not learned yet", None))
                continue
            _say(f"stage {stage}: drawing {concept.prompts[0]}")
            pictures = demo.draw(concept.prompts)
            row.append((f"after learning {new.token}", quartered(pictures)))
            scores.append(demo.score(stage, pictures, concept.prompts, [concept]))
    together = pairs(concepts)
    if together:
        rows.append([])
    for pair in together:
        prompts, halves = prompts_for_two(*pair), halves_for_two(*pair)
        _say(f"two together: {prompts[0]}")
        pictures = demo.draw_halves(halves) if halves else demo.draw(prompts)
        label = (" | " if halves else " + ").join(concept.token for concept in pair)
        rows[-1].append((label, quartered(pictures)))
        scores.append(demo.score(len(concepts), pictures, prompts, list(pair)))
    return curves, rows, scores


def _sampler(graph: Graph, model: str, positive: str) -> str:
    """Of the workflow's samplers the first that is wired to nodes of these classes."""

    def wired_to(node_id: str, socket: str) -> str:
        found: str = graph[wired_from(graph, node_id, socket)]["class_type"]
        return found

    samplers = find(graph, "KSampler")
    return next(n for n in samplers if (wired_to(n, "model"), wired_to(n, "positive")) == (model, positive))


def _figures(text: str) -> tuple[float, float]:
    """CLIP-I and CLIP-T from CLIPScore's text."""
    found = [re.search(rf"{name} (-?[\d.]+)", text) for name in ("CLIP-I", "CLIP-T")]
    if found[0] is None or found[1] is None:
        raise DevToolError(f"CLIPScore's text names no CLIP-I and CLIP-T, expected both: {text!r}")
    return float(found[0][1]), float(found[1][1])


def _write_scores(output: Path, scores: list[Score], warnings: list[str]) -> None:
    data = {"warnings": warnings, "scores": [vars(score) for score in scores]}
    (output / "scores.json").write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    lines = ["# CLIP scores (plain cosine)", "", *warnings, ""]
    lines += [
        "| after stage | concept | first prompt | pictures | CLIP-I | CLIP-T |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {s.stage} | {s.concept} | `{s.prompt}` | {s.pictures} | {s.clip_i:.4f} | {s.clip_t:.4f} |"
        for s in scores
    ]
    (output / "scores.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _say(text: str) -> None:
    print(f"[demo] {text}", flush=True)
