"""Pieces that the bundled workflows are made of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .workflow_graph import Node, Output

CHECKPOINT = "v1-5-pruned-emaonly-fp16.safetensors"
CHECKPOINT_URL = (
    "https://huggingface.co/Comfy-Org/stable-diffusion-v1-5-archive/resolve/main/"
    "v1-5-pruned-emaonly-fp16.safetensors"
)
PICTURE, TEXT = 350, 150  # pixels kept free in a node for what it shows
LEARNING = 40  # for what Continual Train shows before it learns
# How much higher Nodes 2.0 makes a node: by a text of some lines; by what is watched, and the host's preview.
TEXT_GROWS, LEARNING_GROWS = 250, 640


def checkpoint() -> Node:
    models = [{"name": CHECKPOINT, "url": CHECKPOINT_URL, "directory": "checkpoints"}]
    return Node("CheckpointLoaderSimple", {"ckpt_name": CHECKPOINT}, models=models)


def concept_images(name: str, class_word: str, folder: str) -> Node:
    values = {"name": name, "class_word": class_word, "folder": folder, "resolution": 512}
    return Node("LoadConceptImages", values)


def select_and_train(
    base: Node, concept: Node, preview: str, memory: Output | None = None, method: str | None = None
) -> tuple[Node, Node]:
    """method: of Choose Method; None for Select Concept Neurons."""
    common: dict[str, Any] = {"model": base["MODEL"], "clip": base["CLIP"], "concept": concept["concept"]}
    common |= {"memory": memory} if memory else {}
    chosen = {} if method is None else {"method": method}
    neurons = Node("ChooseMethod" if chosen else "SelectConceptNeurons", common | chosen)
    train = {"vae": base["VAE"], "neurons": neurons["neurons"], "steps": 500, "preview_prompt": preview}
    return neurons, Node("ContinualTrain", common | train, height=LEARNING, grows=LEARNING_GROWS)


def apply_memory(base: Node, memory: Output, title: str | None = None) -> Node:
    return Node(
        "ApplyPersonalizedUNet", {"model": base["MODEL"], "clip": base["CLIP"], "memory": memory}, title
    )


def empty_latent(width: int = 512) -> Node:
    return Node("EmptyLatentImage", {"width": width, "height": 512, "batch_size": 1})


def encode(clip: Output, text: str | Output, title: str) -> Node:
    return Node("CLIPTextEncode", {"clip": clip, "text": text}, title)


def stock_chain(
    model: Output,
    clip: Output,
    base: Node,
    prompt: str | Output,
    prefix: str,
    latent: Node | None = None,
    negative: Node | None = None,
) -> list[Node]:
    """The stock chain from prompt to picture, ending in VAEDecode and SaveImage, without the shared nodes."""
    positive = encode(clip, prompt, "Positive prompt")
    own: list[Node] = [positive]
    if negative is None:
        own.append(negative := encode(clip, "", "Negative prompt"))
    if latent is None:
        own.append(latent := empty_latent())
    return [*own, *sampled(model, base, positive["CONDITIONING"], prefix, latent, negative)]


def regions(clip: Output, texts: Sequence[str]) -> list[Node]:
    """A prompt for each part of the picture, from left to right; the last node joins them."""
    sides = {2: ("left", "right"), 3: ("left", "middle", "right")}[len(texts)]
    prompts = [encode(clip, text, f"Prompt, {side}") for text, side in zip(texts, sides, strict=True)]
    share = round(1 / len(texts), 2)
    areas = [
        Node(
            "ConditioningSetAreaPercentage",
            {
                "conditioning": prompt["CONDITIONING"],
                "width": share,
                "height": 1.0,
                "x": round(number / len(texts), 2),
                "y": 0.0,
            },
            f"The {side} {'half' if len(texts) == 2 else 'third'}",
        )
        for number, (prompt, side) in enumerate(zip(prompts, sides, strict=True))
    ]
    joined = [areas[0]]
    for area in areas[1:]:
        both = {"conditioning_1": joined[-1]["CONDITIONING"], "conditioning_2": area["CONDITIONING"]}
        joined.append(Node("ConditioningCombine", both))
    return [*prompts, *areas, *joined[1:]]


def sampled(
    model: Output,
    base: Node,
    positive: Output,
    prefix: str,
    latent: Node,
    negative: Node,
    denoise: float = 1.0,
) -> list[Node]:
    """The stock chain from conditioning to picture."""
    conditions = {"positive": positive, "negative": negative["CONDITIONING"]}
    settings: dict[str, Any] = {
        "seed": 1,
        "steps": 25,
        "cfg": 7.0,
        "sampler_name": "euler",
        "scheduler": "normal",
    }
    settings |= {"denoise": denoise} if denoise < 1 else {}
    sampler = Node("KSampler", {"model": model, **conditions, "latent_image": latent["LATENT"], **settings})
    decode = Node("VAEDecode", {"samples": sampler["LATENT"], "vae": base["VAE"]})
    save = Node("SaveImage", {"images": decode["IMAGE"], "filename_prefix": f"cns/{prefix}"}, height=PICTURE)
    return [sampler, decode, save]


def show(image: Output, title: str) -> Node:
    return Node("PreviewImage", {"images": image}, title, height=PICTURE)


def tell(text: Output, title: str) -> Node:
    return Node("PreviewAny", {"source": text}, title, height=TEXT, grows=TEXT_GROWS)
