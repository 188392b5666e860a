"""The command line: one command for each tool."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from .files import (
    DEFAULT_FOLDER,
    judged_on,
    load_stage,
    load_text,
    load_tutor,
    load_vae,
    load_world,
    trained_on,
    world_path,
)
from .layout import SIZES
from .packed.quantisation import LEAST_BITS, MOST_BITS
from .training.loop import Stretch, default_device, train
from .training.tokenizer import Tokenizer


def build_parser() -> argparse.ArgumentParser:
    """The command line with every tool's options."""
    parser = argparse.ArgumentParser(
        prog="base",
        description="A world of emoji scenes, and a small base model in SD 1.5's layout trained on it. "
        "The training tools go on from their last checkpoint; Ctrl-C and time limits lose nothing.",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=DEFAULT_FOLDER,
        metavar="DIR",
        help="where everything is kept (%(default)s)",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    build = commands.add_parser("build", help="get the emoji, draw the places, pack the world (needs npm)")
    build.add_argument(
        "--tokenizer", type=Path, required=True, metavar="DIR", help="CLIP's vocab.json and merges.txt"
    )
    build.add_argument("--seed", type=int, default=0)

    for name, text, batch, rate, minutes, cooldown in (
        ("clip", "train the base's text encoder against pictures", 64, 1e-3, 8.0, 0.4),
        ("vae", "train the VAE", 16, 1e-3, 15.0, 0.4),
        ("tutor", "train the judge's texts and a convolutional tutor for its eyes", 64, 1e-3, 15.0, 0.5),
        ("judge", "train the small CLIP that judges pictures", 64, 1e-3, 25.0, 0.5),
        ("unet", "train the U-Net", 64, 8e-4, 60.0, 0.4),
    ):
        tool = commands.add_parser(name, help=text)
        _add_size(tool)
        tool.add_argument("--minutes", type=float, default=minutes, help="of this stretch (%(default)s)")
        tool.add_argument("--steps", type=int, help="of this stretch; default: as many as the minutes allow")
        tool.add_argument("--batch", type=int, default=batch, help="pictures a step (%(default)s)")
        tool.add_argument("--rate", type=float, default=rate, help="learning rate (%(default)s)")
        tool.add_argument(
            "--cooldown",
            type=float,
            default=cooldown,
            help="share of this stretch over which the learning rate falls to 1 %% (%(default)s)",
        )
        tool.add_argument("--seed", type=int, default=0)
        if name == "vae":
            tool.add_argument(
                "--decoder-only",
                action="store_true",
                help="leave the latents as they are, so that a U-Net trained on them stays right",
            )
        if name == "unet":
            tool.add_argument("--pool", type=int, default=8192, help="pictures kept at hand (%(default)s)")
            tool.add_argument(
                "--fresh", type=float, default=0.25, help="new pictures for each one trained on (%(default)s)"
            )
            tool.add_argument("--compile", action="store_true", help="torch.compile: pays on a GPU")

    bench = commands.add_parser("bench", help="draw with the base, and hold what the judge sees to the bars")
    _add_size(bench)
    bench.add_argument(
        "--packed", type=Path, metavar="FILE", help="a packed base; default: the newest state of training"
    )
    pack = commands.add_parser("pack", help="make one small file of the trained networks, and a model card")
    _add_size(pack)
    pack.add_argument("--out", type=Path, metavar="DIR", help="where both go; default: where everything is")
    pack.add_argument(
        "--bits",
        type=int,
        choices=range(LEAST_BITS, MOST_BITS + 1),
        default=MOST_BITS,
        help="of a weight in a large matrix (%(default)s)",
    )
    expand = commands.add_parser("expand", help="make ComfyUI's checkpoint of a packed base")
    expand.add_argument("packed", type=Path, metavar="FILE", help="base-<size>.safetensors.xz")
    expand.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the .safetensors file to write"
    )
    references = commands.add_parser("references", help="make the pictures that the concepts are taught from")
    _add_size(references)
    references.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="where each concept's folder goes"
    )
    references.add_argument("--seed", type=int, default=0)
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run one tool; returns the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        return _run(options)
    except (OSError, FloatingPointError, ValueError) as error:
        print(f"base {options.command}: {error}", file=sys.stderr)
        return 1


def _run(options: argparse.Namespace) -> int:
    if options.command == "build":
        return _build(options)
    if options.command == "bench":
        from .judge.evaluate import run_bench

        return run_bench(options.work, SIZES[options.size], options.packed)
    if options.command == "pack":
        from .packed.packing import pack

        pack(options.work, SIZES[options.size], options.out or options.work, options.bits)
    elif options.command == "expand":
        from .packed.packing import expand

        expand(options.packed, options.out)
    elif options.command == "references":
        from .world.concepts import read_concepts
        from .world.references import write_references

        world, variety = load_world(options.work), SIZES[options.size].variety
        size = write_references(world, read_concepts().concepts, options.out, options.seed, variety)
        print(f"{options.out}: {size / 1e6:.2f} MB")
    else:
        _train(options)
    return 0


def _build(options: argparse.Namespace) -> int:
    # These need packages that the other tools do without.
    from .world.build import build_world
    from .world.sources import SourceError

    try:
        build_world(world_path(options.work), options.work / "downloads", options.tokenizer, options.seed)
    except SourceError as error:
        print(f"base build: {error}", file=sys.stderr)
        return 1
    return 0


def _train(options: argparse.Namespace) -> None:
    size, device = SIZES[options.size], default_device()
    whole = load_world(options.work)
    world = trained_on(whole, size)
    common = {"seed": options.seed, "batch": options.batch, "rate": options.rate}
    stretch = Stretch(options.work, options.minutes, options.steps, options.cooldown)
    if options.command == "vae":
        from .training.train_vae import VaeTrainer

        tutor = load_tutor(options.work, size, world)
        only = options.decoder_only
        train(VaeTrainer(size, world, tutor, device, **common, decoder_only=only), stretch)
        return
    if options.command == "clip":
        from .training.train_text import base_text_trainer

        train(base_text_trainer(size, world, device, **common), stretch)
    elif options.command == "tutor":
        from .judge.train_judge import tutor_trainer

        train(tutor_trainer(size, judged_on(whole, size), device, **common), stretch)
    elif options.command == "judge":
        from .judge.train_judge import JudgeTrainer, tutor_trainer

        known = judged_on(whole, size)
        tutored = tutor_trainer(size, known, device, **common)
        tutored.load(load_stage(options.work, tutored.name, "tutor"))
        vae = load_vae(options.work, size).to(device)
        train(JudgeTrainer(size, known, tutored, vae, device, **common), stretch)
    else:
        from .training.strangers import Strangers
        from .training.train_unet import UNetTrainer

        vae = load_vae(options.work, size).to(device)
        text = load_text(options.work, size)[0].to(device)
        tutor = load_tutor(options.work, size, world).to(device)
        tokenizer = Tokenizer(whole.tokenizer_files)
        trainer = UNetTrainer(
            size,
            world,
            Strangers(whole, size, vae, text, tokenizer, options.seed),
            vae,
            text,
            tutor,
            tokenizer,
            device,
            **common,
            pool=options.pool,
            fresh=options.fresh,
            compiled=options.compile,
        )
        train(trainer, stretch)


def _add_size(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--size", choices=sorted(SIZES), default="s", help="of the base model (%(default)s)")
