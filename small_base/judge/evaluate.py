"""`bench`: draws 200 seeded prompts and holds what the judge sees in them against the bars."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from ..files import judged_on, load_text, load_unet, load_vae, load_world, trained_on
from ..layout import BaseSize
from ..packed.packing import networks
from ..training.contrastive import EVALUATION_TEMPLATE
from ..training.loop import default_device
from ..training.samples import save_sheet
from ..training.sampling import sample
from ..training.tokenizer import Tokenizer
from ..training.train_vae import mean_psnr
from ..training.unet import predict_noise
from ..training.vae import Vae
from ..world.compose import background_colour
from ..world.pictures import Batch, PictureStream
from ..world.prompts import EvaluationPrompt, evaluation_prompts
from ..world.wording import article
from ..world.world import World
from .judge import Judge

PROMPTS = 200
CANDIDATES = 100
REAL_PICTURES = 500
STEPS, GUIDANCE = 25, 4.0
_REAL_SEED = 2_000_003
_BATCH = 50
PSNR_BARS = {"s": 25.0, "m": 27.0}


@dataclass(frozen=True)
class Figure:
    """One measured figure beside what it has to reach."""

    figure: str
    value: float
    bar: float | None  # None: it tells how to read the others
    unit: str
    of: int  # pictures

    @property
    def met(self) -> bool:
        """Whether the bar, if any, is reached."""
        return self.bar is None or self.value >= self.bar

    def __str__(self) -> str:
        reached = f"{self.figure:<46} {self.value:6.1f} {self.unit:<3}"
        if self.bar is None:
            return f"{reached} {'':20} ({self.of} pictures)"
        return f"{reached} bar {self.bar:5.1f}  {'met' if self.met else 'MISSED':<8}   ({self.of} pictures)"


def run_bench(folder: Path, size: BaseSize, packed: Path | None) -> int:
    """Judge a packed base, or the newest state of training; 1 if a bar is missed.

    Leaves `bench-<size>.json`, and in `samples/` a sheet of the first 64 pictures with their prompts.
    """
    device = default_device()
    whole = load_world(folder)
    world = trained_on(whole, size)
    if packed is None:
        unet, vae, text = load_unet(folder, size), load_vae(folder, size), load_text(folder, size)[0]
    else:
        unet, vae, text = networks(packed)
    unet, vae, text = unet.to(device), vae.to(device), text.to(device)
    tokenizer = Tokenizer(whole.tokenizer_files)
    judge = Judge(folder / f"judge-{size.name}")
    prompts = evaluation_prompts(world, PROMPTS)

    images = []
    with torch.no_grad():
        without_text = text(tokenizer([""]).to(device))
        for first in range(0, PROMPTS, _BATCH):
            part = prompts[first : first + _BATCH]
            contexts = text(tokenizer([prompt.text for prompt in part]).to(device))
            seeds = range(first, first + len(part))
            shape = size.latent_shape
            how = {"seeds": seeds, "steps": STEPS, "cfg": GUIDANCE}
            latents = sample(partial(predict_noise, unet), contexts, without_text, shape, **how)
            images.append(vae.decode(latents).cpu())
            print(f"[bench] drew {first + len(part)} of {PROMPTS}", flush=True)
        drawn = torch.cat(images)
        known = judged_on(whole, size)
        cpu = torch.device("cpu")
        real = PictureStream(known, size.picture, cpu, _REAL_SEED, pairs=0.0).batch(REAL_PICTURES)
        unseen = PictureStream(world, size.picture, device, _REAL_SEED).batch(128).images
        psnr = mean_psnr(_through(vae, unseen), unseen)
        poses = {"variety": size.variety, "device": cpu, "seed": _REAL_SEED}
        one = PictureStream(world, size.picture, pairs=0.0, **poses).batch(128)
        two = PictureStream(world, size.picture, pairs=1.0, **poses).batch(128)
        come_back = [_through(vae, batch.images.to(device)).cpu() for batch in (one, two)]

    figures = [
        *figures_of_drawn(drawn, prompts, world, judge),
        _share("right name first among 100, real", _named(real.images, _shown(real), known, judge), 95.0),
        Figure("VAE PSNR", psnr, PSNR_BARS[size.name], "dB", len(unseen)),
        # What VAE and judge leave of real pictures: a drawing will hardly do better.
        _share("right name first, real through the VAE", _named(come_back[0], _shown(one), world, judge)),
        _share("both objects first, real", _named(two.images, _shown(two), world, judge)),
        _share("both objects first, real through the VAE", _named(come_back[1], _shown(two), world, judge)),
    ]
    for figure in figures:
        print(figure)
    records = [{**asdict(figure), "met": figure.met} for figure in figures]
    (folder / f"bench-{size.name}.json").write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    path = folder / "samples" / f"bench-{size.name}.png"
    save_sheet(path, drawn[:64], 8, zoom=2 if size.picture <= 64 else 1)
    path.with_suffix(".txt").write_text("".join(f"{p.text}\n" for p in prompts[:64]), encoding="utf-8")
    print(f"[bench] sheet of 64: {path}")
    return 0 if all(figure.met for figure in figures) else 1


def figures_of_drawn(
    images: Tensor, prompts: Sequence[EvaluationPrompt], world: World, judge: Judge
) -> list[Figure]:
    """What the judge and the border pixels say of pictures (B, 3, H, W) drawn for `prompts`."""
    names = [thing.name for thing in world.objects]
    right = [[names.index(name) for name in prompt.objects] for prompt in prompts]
    alone = [index for index, things in enumerate(right) if len(things) == 1]
    pairs = [index for index, things in enumerate(right) if len(things) == 2]
    first = _named(images[alone], [right[index] for index in alone], world, judge)
    both = _named(images[pairs], [right[index] for index in pairs], world, judge)
    plain = [index for index, prompt in enumerate(prompts) if prompt.colour is not None]
    seen = background_colour(images[plain])
    colours = [colour == prompts[index].colour for colour, index in zip(seen, plain, strict=True)]
    return [
        _share("right name first among 100, drawn", first, 60.0),
        _share("background colour right", colours, 90.0),
        _share("both objects first among 100", both, 35.0),
    ]


def _ranked(row: Tensor, right: Sequence[int], rng: random.Random) -> list[int]:
    """The right objects and as many others as make 100, the most similar first."""
    others = [index for index in range(len(row)) if index not in right]
    chosen = [*right, *rng.sample(others, min(CANDIDATES - len(right), len(others)))]
    return sorted(chosen, key=lambda index: -float(row[index]))


def _named(images: Tensor, right: Sequence[Sequence[int]], world: World, judge: Judge) -> list[bool]:
    """For each picture (B, 3, H, W), whether the objects that are in it come first among 100.

    One thing is looked for in the whole picture. Of two each counts for what it most probably is in the part
    that shows it best: parts that show neither are similar to much, but sure of nothing.
    """
    if not right:
        return []
    names = judge.texts(_as_texts([thing.name for thing in world.objects])).T
    if len(right[0]) == 1:
        similarity = judge.pictures(images) @ names
    else:
        every = judge.pictures_and_parts(images) @ names
        similarity = (judge.sharpness() * every).softmax(-1).amax(0)
    rng = random.Random(0)
    return [
        set(_ranked(row, things, rng)[: len(things)]) == set(things)
        for row, things in zip(similarity, right, strict=True)
    ]


def _as_texts(names: Sequence[str]) -> list[str]:
    return [EVALUATION_TEMPLATE.format(article(name)) for name in names]


def _share(figure: str, hits: Sequence[bool], bar: float | None = None) -> Figure:
    return Figure(figure, 100.0 * sum(hits) / len(hits) if hits else 0.0, bar, "%", len(hits))


def _shown(batch: Batch) -> list[list[int]]:
    return [[placed.object_index for placed in scene.placed] for scene in batch.scenes]


@torch.no_grad()
def _through(vae: Vae, images: Tensor) -> Tensor:
    return torch.cat([vae.decode(vae.encode(part)) for part in images.split(32)])
