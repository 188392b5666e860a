"""The three bundled workflows, described once; `python -m devtools.build_workflows` writes both formats.

`workflows/*.json` is for the graph editor (the pack's templates), `workflows/api/*.json` for `/prompt`.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from . import workflow_notes as notes
from .api_client import ApiClient
from .host_process import HostProcess
from .node_schema import ObjectInfo
from .paths import ROOT
from .workflow_format import api_format, editor_format
from .workflow_graph import Graph, Group, Node, Note, Output

FOLDER = ROOT / "workflows"
PHOTO_CLIP = "openai/clip-vit-base-patch32"  # the workflows are for checkpoints that draw photos
CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CHECKPOINT_URL = (
    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
    "v1-5-pruned-emaonly-fp16.safetensors"
)
PANDA_PROMPT = "a photo of <my-panda> in the snow"
TEAPOT_PROMPT = "a photo of <my-teapot> in a meadow"
HALVES = ("a photo of <my-panda> in a meadow", TEAPOT_PROMPT)  # left and right
PLAIN_PROMPT = "a photo of a red bicycle by a brick wall"
PICTURE, TEXT = 300, 150  # pixels kept free in a node for what it shows
BLUE, GREEN, OLIVE, GREY = "#3f789e", "#3f7a4f", "#8a7a3a", "#888888"


def learn_concept() -> Graph:
    """One concept from a folder of pictures: select, train, save, draw and score."""
    base = _checkpoint()
    concept = _concept("my-panda", "bear", "panda")
    neurons, train = _learn(base, concept, "a photo of <my-panda> on a beach")
    save = Node("SaveConceptMemory", {"memory": train["memory"], "filename": notes.FIRST_FILE})
    apply = _apply(base, train["memory"])
    prompt = Node("PrimitiveStringMultiline", {"value": PANDA_PROMPT}, "Prompt")
    drawing = _draw(apply["MODEL"], apply["CLIP"], base, prompt["STRING"], "learn")
    score = Node(
        "CLIPScore",
        {
            "image": drawing[-2]["IMAGE"],
            "prompt": prompt["STRING"],
            "clip_model": PHOTO_CLIP,
            "concept": concept["concept"],
        },
    )
    return Graph(
        "learn_concept",
        [
            [Group("Read me", [[Note(notes.LEARN, "Learn one concept", 360)]], GREY)],
            [Group("1. Model and pictures", [[base, concept, _show(concept["images"], "The pictures")]])],
            [
                Group(
                    "2. Select and train",
                    [
                        [
                            neurons,
                            _show(neurons["image"], "What may move"),
                            _tell(neurons["text"], "What is protected"),
                        ],
                        [train, save],
                        [_show(train["loss_curve"], "Loss"), _tell(train["text"], "Training")],
                    ],
                    GREEN,
                )
            ],
            [Group("3. Draw it", [[apply, prompt, *drawing[:3]], drawing[3:]], OLIVE)],
            [
                Group(
                    "4. Measure",
                    [[score, _tell(score["text"], "Scores"), Note(notes.SCORE, "Scores", 120, 330)]],
                )
            ],
        ],
    )


def add_concept() -> Graph:
    """A second concept on top of the first; the first drawn before and after, at one seed."""
    base = _checkpoint()
    loaded = Node("LoadConceptMemory", {"file": f"{notes.FIRST_FILE}.safetensors"})
    concept = _concept("my-teapot", "cup", "teapot")
    neurons, train = _learn(base, concept, TEAPOT_PROMPT, loaded["memory"])
    save = Node("SaveConceptMemory", {"memory": train["memory"], "filename": notes.SECOND_FILE})
    before = _apply(base, loaded["memory"], "Before: one concept")
    after = _apply(base, train["memory"], "After: both concepts")
    prompt = Node("PrimitiveStringMultiline", {"value": PANDA_PROMPT}, "Prompt of the first concept")
    latent = _latent()
    common = {"latent": latent, "negative": _encode(base["CLIP"], "", "Negative prompt")}
    old_before = _draw(before["MODEL"], before["CLIP"], base, prompt["STRING"], "add_before", **common)
    old_after = _draw(after["MODEL"], after["CLIP"], base, prompt["STRING"], "add_after", **common)
    new = _draw(after["MODEL"], after["CLIP"], base, TEAPOT_PROMPT, "add_new", **common)
    return Graph(
        "add_concept",
        [
            [Group("Read me", [[Note(notes.ADD, "Add a concept", 340)]], GREY)],
            [
                Group(
                    "1. Old and new",
                    [[base, loaded, concept, _show(concept["images"], "The pictures")]],
                )
            ],
            [
                Group(
                    "2. Select and train",
                    [
                        [
                            neurons,
                            _show(neurons["image"], "What may move"),
                            _tell(neurons["text"], "What is protected"),
                        ],
                        [train, save],
                        [_show(train["loss_curve"], "Loss"), _tell(train["text"], "Training")],
                    ],
                    GREEN,
                )
            ],
            [
                Group(
                    "3. Apply before and after", [[before, after, prompt, common["negative"], latent]], OLIVE
                )
            ],
            [Group("First concept, before", [old_before], OLIVE)],
            [Group("First concept, after", [old_after], OLIVE)],
            [Group("New concept", [new], OLIVE)],
        ],
    )


def draw_concepts() -> Graph:
    """A saved memory at work: one concept, two side by side, a plain prompt with and without the memory."""
    base = _checkpoint()
    loaded = Node("LoadConceptMemory", {"file": f"{notes.SECOND_FILE}.safetensors"})
    apply = _apply(base, loaded["memory"])
    plain = Node("PrimitiveStringMultiline", {"value": PLAIN_PROMPT}, "Plain prompt")
    latent = _latent()
    common = {"latent": latent, "negative": _encode(base["CLIP"], "", "Negative prompt")}
    model, clip = apply["MODEL"], apply["CLIP"]
    one = _draw(model, clip, base, PANDA_PROMPT, "draw_one", **common)
    halves = _halves(clip, *HALVES)
    two = [*halves, *_sampled(model, base, halves[-1]["CONDITIONING"], "draw_two", **common)]
    untouched = _draw(base["MODEL"], base["CLIP"], base, plain["STRING"], "draw_plain_untouched", **common)
    personalized = _draw(model, clip, base, plain["STRING"], "draw_plain_personalized", **common)
    known = _tell(loaded["text"], "What it knows")
    return Graph(
        "draw_concepts",
        [
            [Group("Read me", [[Note(notes.DRAW, "Draw concepts", 320)]], GREY)],
            [Group("1. Model and memory", [[base, loaded, known]])],
            [Group("2. Apply; what all share", [[apply, plain, common["negative"], latent]])],
            [Group("One concept", [one], OLIVE)],
            [Group("Two side by side", [two[:5], two[5:]], OLIVE)],
            [Group("Plain, untouched model", [untouched], GREEN)],
            [Group("Plain, with the memory", [personalized], GREEN)],
        ],
    )


def _checkpoint() -> Node:
    models = [{"name": CHECKPOINT, "url": CHECKPOINT_URL, "directory": "checkpoints"}]
    return Node("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT}, models=models)


def _concept(name: str, class_word: str, folder: str) -> Node:
    values = {"name": name, "class_word": class_word, "folder": folder, "resolution": 512}
    return Node("LoadConceptImages", values)


def _learn(base: Node, concept: Node, preview: str, memory: Output | None = None) -> tuple[Node, Node]:
    common: dict[str, Any] = {"model": base["MODEL"], "clip": base["CLIP"], "concept": concept["concept"]}
    common |= {"memory": memory} if memory else {}
    neurons = Node("SelectConceptNeurons", dict(common))
    train = {"vae": base["VAE"], "neurons": neurons["neurons"], "steps": 500, "preview_prompt": preview}
    return neurons, Node("ContinualTrain", common | train, height=PICTURE)


def _apply(base: Node, memory: Output, title: str | None = None) -> Node:
    return Node(
        "ApplyPersonalizedUNet", {"model": base["MODEL"], "clip": base["CLIP"], "memory": memory}, title
    )


def _latent() -> Node:
    return Node("EmptyLatentImage", {"width": 512, "height": 512, "batch_size": 1})


def _encode(clip: Output, text: str | Output, title: str) -> Node:
    return Node("CLIPTextEncode", {"clip": clip, "text": text}, title)


def _draw(
    model: Output,
    clip: Output,
    base: Node,
    prompt: str | Output,
    prefix: str,
    latent: Node | None = None,
    negative: Node | None = None,
) -> list[Node]:
    """The stock chain from prompt to picture, ending in VAEDecode and SaveImage, without the shared nodes."""
    positive = _encode(clip, prompt, "Positive prompt")
    own: list[Node] = [positive]
    if negative is None:
        own.append(negative := _encode(clip, "", "Negative prompt"))
    if latent is None:
        own.append(latent := _latent())
    return [*own, *_sampled(model, base, positive["CONDITIONING"], prefix, latent, negative)]


def _halves(clip: Output, left: str, right: str) -> list[Node]:
    """A prompt for each half of the picture; the last node joins them."""
    prompts = [_encode(clip, text, f"Prompt, {side}") for text, side in ((left, "left"), (right, "right"))]
    areas = [
        Node(
            "ConditioningSetAreaPercentage",
            {"conditioning": prompt["CONDITIONING"], "width": 0.5, "height": 1.0, "x": x, "y": 0.0},
            f"The {side} half",
        )
        for prompt, x, side in ((prompts[0], 0.0, "left"), (prompts[1], 0.5, "right"))
    ]
    conditions = {f"conditioning_{i}": area["CONDITIONING"] for i, area in enumerate(areas, start=1)}
    return [*prompts, *areas, Node("ConditioningCombine", conditions)]


def _sampled(
    model: Output, base: Node, positive: Output, prefix: str, latent: Node, negative: Node
) -> list[Node]:
    """The stock chain from conditioning to picture."""
    conditions = {"positive": positive, "negative": negative["CONDITIONING"]}
    settings = {"seed": 1, "steps": 25, "cfg": 7.0, "sampler_name": "euler", "scheduler": "normal"}
    sampler = Node("KSampler", {"model": model, **conditions, "latent_image": latent["LATENT"], **settings})
    decode = Node("VAEDecode", {"samples": sampler["LATENT"], "vae": base["VAE"]})
    save = Node("SaveImage", {"images": decode["IMAGE"], "filename_prefix": f"cns/{prefix}"}, height=PICTURE)
    return [sampler, decode, save]


def _show(image: Output, title: str) -> Node:
    return Node("PreviewImage", {"images": image}, title, height=PICTURE)


def _tell(text: Output, title: str) -> Node:
    return Node("PreviewAny", {"source": text}, title, height=TEXT)


GRAPHS = (learn_concept, add_concept, draw_concepts)


def build(info: ObjectInfo) -> dict[str, str]:
    """Path below `workflows/` to text, for both formats of every graph."""
    files: dict[str, str] = {}
    for describe in GRAPHS:
        graph = describe()
        files[f"{graph.name}.json"] = json.dumps(editor_format(graph, info), indent=1) + "\n"
        files[f"api/{graph.name}.json"] = json.dumps(api_format(graph, info), indent=1) + "\n"
    return files


def write(files: dict[str, str], folder: Path = FOLDER) -> None:
    """Write what `build` gave."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8", newline="\n")


def main() -> None:
    """Ask a running host, or one started for it, for its nodes and write the files."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", help="a running ComfyUI with this pack; default: start one")
    url = parser.parse_args().url
    if url:
        with ApiClient(url) as client:
            write(build(client.get_json("/object_info")))
    else:
        with HostProcess() as host, ApiClient(host.url) as client:
            write(build(client.get_json("/object_info")))


if __name__ == "__main__":
    main()
