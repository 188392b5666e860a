"""`python -m devtools.draw_thumbnails` remakes the pictures that the bundled workflows are shown with.

On the small base: three concepts are learned, and every workflow is queued as its user would. About ten
minutes on two cores.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
from pathlib import Path

from PIL import Image, ImageOps

from cns_core.evaluation.sheets import Cell, captioned

from . import workflow_notes as notes
from .api_client import ApiClient, Graph
from .build_workflows import FOLDER
from .bundled import PLAIN_PROMPT
from .concept_folders import read_concepts
from .demo import MEMORY_NAME, SMALL_GUIDANCE, SMALL_RESOLUTION, Demo, DemoOptions
from .graphs import find, keep_only, override, read_graph
from .host_process import HostProcess
from .staging import SHIPPED_CONCEPTS, stage_checkpoint, stage_clip, stage_images

CONCEPTS = ("panda", "teapot", "parrot")
# A part of each file name that a workflow saves its pictures under, and what to write above the picture.
SHOWN: dict[str, tuple[tuple[str, str], ...]] = {
    "learn_concept": (("learn", "<my-panda> in the snow"),),
    "add_concept": (
        ("add_before", "before"),
        ("add_after", "after one more"),
        ("add_new", "<my-teapot>"),
    ),
    "draw_concepts": (
        ("draw_one", "<my-panda>"),
        ("draw_two", "<my-panda> | <my-teapot>"),
        ("draw_plain_untouched", "a house, untouched"),
        ("draw_plain_personalized", "with the memory"),
    ),
    "region_control": (
        ("region_one_prompt", "in one prompt"),
        ("region_two", "panda | teapot"),
        ("region_three", "panda | teapot | parrot"),
    ),
    "concept_matrix": (),
    "share_concept": (("share_memory", "with the memory"), ("share_stock", "by stock nodes alone")),
    "img2img_concept": (("img2img", "drawn over by <my-teapot>"),),
    "compare_methods": (
        ("compare_directions", "guarded directions"),
        ("compare_lora", "LoRA"),
        ("compare_token", "Textual Inversion"),
    ),
}
GIVEN = {
    "learn_concept": "panda",
    "add_concept": "teapot",
    "compare_methods": "panda",
}  # of whose pictures one is shown first
# What the small base can draw in place of what it cannot.
KNOWN = {PLAIN_PROMPT: "a photo of a house on a beach"}
SEED = 5
TO_DRAW_OVER = "a photo of a cup in a meadow"
QUALITY, LARGEST, SMALLEST = 88, 60_000, 260  # of JPEG; bytes; pixels of the shorter side


class Thumbnails:
    """One host in which three concepts have been learned. kept: a folder of memories from an earlier time."""

    def __init__(self, host: HostProcess, client: ApiClient, demo: Demo, kept: Path | None) -> None:
        self.host, self.client, self.demo, self.kept = host, client, demo, kept

    def learn(self) -> None:
        """The three files that the workflows load, each with one concept more."""
        folder = self.host.base / "models" / "concept_memory"
        names = (notes.FIRST_FILE, notes.SECOND_FILE, notes.THIRD_FILE)
        concepts = read_concepts(SHIPPED_CONCEPTS, CONCEPTS)
        for number, (concept, name) in enumerate(zip(concepts, names, strict=True)):
            kept = None if self.kept is None else self.kept / f"{name}.safetensors"
            if kept is not None and kept.is_file():
                folder.mkdir(parents=True, exist_ok=True)
                for file in (name, MEMORY_NAME):
                    shutil.copy2(kept, folder / f"{file}.safetensors")
                continue
            print(f"[thumbnails] learning {concept.token}", flush=True)
            self.demo.learn(concept, first=number == 0)
            learned = folder / f"{MEMORY_NAME}.safetensors"
            shutil.copy2(learned, folder / f"{name}.safetensors")
            if kept is not None:
                shutil.copy2(learned, kept)

    def draw(self, name: str) -> Image.Image:
        """What a workflow draws, side by side."""
        print(f"[thumbnails] {name}", flush=True)
        cells: list[Cell] = []
        if name in GIVEN:
            (concept,) = read_concepts(SHIPPED_CONCEPTS, [GIVEN[name]])
            cells.append(("one of the pictures", Image.open(concept.pictures[0])))
        if name == "img2img_concept":
            (given,) = self.demo.draw([TO_DRAW_OVER], with_memory=False)
            given.save(self.host.base / "input" / "example.png")
            cells.append(("the picture", given))
        graph = self._drawing(name)
        if name == "concept_matrix":
            return self._matrix(graph)
        if name == "share_concept":
            self.client.run(keep_only(graph, *find(graph, "ExportConceptMemory")))
        for prefix, caption in SHOWN[name]:
            saver = next(n for n in find(graph, "SaveImage") if _prefix(graph, n) == f"cns/{prefix}")
            shown = self.client.run(keep_only(graph, saver))[saver]["images"][0]
            picture = Image.open(io.BytesIO(self.client.view(shown)))
            cells.append((caption, picture))
        columns = 2 if len(cells) % 2 == 0 else len(cells)
        return captioned([cells[i : i + columns] for i in range(0, len(cells), columns)])

    def _matrix(self, graph: Graph) -> Image.Image:
        """The grid of the concepts at all stages."""
        graph = override(
            graph,
            "ConceptMatrix",
            pictures=1,
            resolution=SMALL_RESOLUTION,
            cfg=SMALL_GUIDANCE,
            clip_model=self.demo.clip_model,
        )
        shown = next(n for n in find(graph, "PreviewImage") if graph[n]["inputs"]["images"][1] == 2)
        picture = self.client.run(keep_only(graph, shown))[shown]["images"][0]
        grid = Image.open(io.BytesIO(self.client.view(picture))).convert("RGB")
        return ImageOps.contain(grid, (600, 600))

    def _drawing(self, name: str) -> Graph:
        """A workflow at the small base's size; what it would learn is loaded."""
        graph = self.demo.fitted(read_graph(FOLDER / "api" / f"{name}.json"))
        graph = override(graph, "KSampler", cfg=SMALL_GUIDANCE, seed=SEED)
        for node in graph.values():
            for key, value in node["inputs"].items():
                node["inputs"][key] = KNOWN.get(value, value) if isinstance(value, str) else value
        if find(graph, "ImageScale"):
            graph = override(graph, "ImageScale", width=SMALL_RESOLUTION, height=SMALL_RESOLUTION)
        if name == "compare_methods":  # nothing of it was learned before
            graph = override(graph, "LoadConceptImages", resolution=SMALL_RESOLUTION)
            graph = override(graph, "ContinualTrain", **self.demo.training, preview_every=0)
            return override(graph, "ChooseMethod", weight_lr=1e-3)
        for node in find(graph, "ContinualTrain"):
            file = notes.FIRST_FILE if name == "learn_concept" else notes.SECOND_FILE
            graph[node] = {"class_type": "LoadConceptMemory", "inputs": {"file": f"{file}.safetensors"}}
        if name == "region_control":  # the widest picture is of half more than the others' width
            wide = _latent_of(graph, "cns/region_three")
            graph[wide]["inputs"]["width"] = SMALL_RESOLUTION * 3 // 2
        return graph


def _prefix(graph: Graph, node_id: str) -> str:
    prefix: str = graph[node_id]["inputs"]["filename_prefix"]
    return prefix


def _latent_of(graph: Graph, prefix: str) -> str:
    """The empty latent from which the picture with this file name is drawn."""
    saver = next(n for n in find(graph, "SaveImage") if _prefix(graph, n) == prefix)
    (latent,) = find(keep_only(graph, saver), "EmptyLatentImage")
    return latent


def main() -> None:
    """Draw them all, or those named."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=list(SHOWN), default=list(SHOWN), metavar="WORKFLOW")
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder; default: workflows/")
    parser.add_argument("--kept", type=Path, help="folder for the memories: taken from there if they are")
    options = parser.parse_args()
    host = HostProcess()
    names = (stage_checkpoint(host.base, None), stage_clip(host.base, None))
    stage_images(host.base, [SHIPPED_CONCEPTS / name for name in CONCEPTS])
    with host, ApiClient(host.url) as client:
        demo = Demo(host, client, DemoOptions(None, None, None, None, None, options.output), names)
        thumbnails = Thumbnails(host, client, demo, options.kept)
        thumbnails.learn()
        for name in options.only:
            _save(thumbnails.draw(name), options.output / f"{name}.jpg")


def _save(picture: Image.Image, path: Path) -> None:
    quality = QUALITY
    if min(picture.size) < SMALLEST:
        picture = ImageOps.contain(picture, (picture.width * 2, SMALLEST))
    content = io.BytesIO()
    picture.save(content, "JPEG", quality=quality)
    while content.tell() > LARGEST:
        content, quality = io.BytesIO(), quality - 5
        picture.save(content, "JPEG", quality=quality)
    path.write_bytes(content.getvalue())
    print(json.dumps({"file": str(path), "bytes": content.tell(), "size": picture.size}), flush=True)


if __name__ == "__main__":
    main()
