#!/usr/bin/env python3
"""One door to everything a developer of this pack does: set-up, tests, lint, a host to work in, the demo, the
small base model to measure on.

Needs nothing but Python 3.10 to 3.13. The first command makes `.venv` and gets ComfyUI, which takes minutes.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from pathlib import Path

from devtools.base_command import bench_words, repository_environment, run_base
from devtools.benches import BENCHES, SUITES
from devtools.environment import ensure_environment
from devtools.errors import DevToolError
from devtools.paths import COMFYUI_VARIABLE, ROOT, VENV, venv_python

EPILOG = f"""
environment:
  {COMFYUI_VARIABLE}   the ComfyUI folder to develop against (it holds main.py).
                Without it ComfyUI 0.3.75 is downloaded into .comfyui/.

the small base model:
  dev.py base --help          the tools that make it: build, vae, clip, judge, unet, bench, pack, expand
  dev.py base unet --help     one tool's options
  dev.py bench base           draws with it and holds the pictures against bars
  dev.py bench learning       learns the concepts that it has never seen, and scores them
  dev.py bench paper          compares methods by a suite; also: long, order, alike, forgetting, overlap,
                              ablation, sweep, methods, joining
  dev.py bench pairs          learns two things and draws both in one picture, by several ways to ask for it
  dev.py bench unlearn        erases a word, and tells what goes with it and what an attack brings back
  dev.py bench places         in which attention layers learned concepts live
  dev.py bench space          a space of many faces: new ones out of it, and faces moved along directions
  dev.py bench directions     how much room the text features of a checkpoint leave for concepts
  dev.py bench memory         what learning takes of a GPU's memory, computed for the full-size models
                All of them work in small_base/work/ unless --work names another folder.

The set-up is kept in .venv/ and .comfyui/; delete both to begin anew.
"""


def build_parser() -> argparse.ArgumentParser:
    """The command line, with the options of each sub-command."""
    parser = argparse.ArgumentParser(
        prog="dev.py",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser(
        "demo",
        help="learn three concepts one after another in a real host and draw them",
        description="Starts ComfyUI, learns three concepts one after another through its API, draws each "
        "of them after every stage, and leaves pictures, curves, scores and the memory file in --output.",
    )
    demo.add_argument(
        "--checkpoint",
        type=Path,
        metavar="FILE",
        help="an SD 1.x checkpoint; default: the small base model in this repository",
    )
    demo.add_argument(
        "--concepts",
        type=Path,
        metavar="DIR",
        help="a folder of folders of photos, one folder a concept; default: three of workflows/images",
    )
    demo.add_argument("--steps", type=positive_int, metavar="N", help="training steps a concept")
    demo.add_argument(
        "--resolution", type=positive_int, metavar="PX", help="training and picture size in pixels"
    )
    demo.add_argument(
        "--clip-model",
        metavar="FOLDER",
        help="a transformers CLIP folder or a Hugging Face id for the scores; default: the small judge",
    )
    demo.add_argument(
        "--output", type=Path, default=ROOT / "demo_output", metavar="DIR", help="default: demo_output"
    )

    test = commands.add_parser(
        "test",
        help="run the tests of the core and of the host",
        description="Runs pytest on tests/. What follows `--` is pytest's: dev.py test -- tests/core -k mask",
    )
    test.add_argument("pytest_arguments", nargs="*", metavar="ARG", help="for pytest")

    host = commands.add_parser(
        "host",
        help="start ComfyUI with this pack, to work in by hand",
        description="Starts ComfyUI with this pack alone, its base folder in .host/, until Ctrl-C.",
    )
    host.add_argument("--port", type=positive_int, default=8188, metavar="N", help="default: 8188")
    host.add_argument(
        "--checkpoint", type=Path, metavar="FILE", help="a checkpoint to offer beside the small base"
    )

    commands.add_parser(
        "base",
        help="the tools that make the small base model; what follows is theirs: dev.py base --help",
    )

    bench = commands.add_parser(
        "bench",
        help="measure the small base model, learning on it, or speed and memory",
        description="Draws seeded prompts with the base and holds what its judge sees in them against bars; "
        "the exit code is 1 if one is missed. The world and the judge have to be there: dev.py base --help.",
    )
    bench.add_argument(
        "what",
        choices=("base", *BENCHES),
        help="what to measure; all but base have options of their own: --help",
    )
    bench.add_argument("--size", choices=("s", "m"), default="s", help="of the base; default: s")
    bench.add_argument(
        "--work", type=Path, metavar="DIR", help="where the tools work; default: small_base/work"
    )
    bench.add_argument(
        "--packed", type=Path, metavar="FILE", help="a packed base; default: the newest state of training"
    )

    commands.add_parser(
        "lint",
        help="ruff and mypy",
        description="Runs ruff and its formatter on everything, mypy on cns_core.",
    )
    return parser


def parse_arguments(words: list[str]) -> argparse.Namespace:
    """Parse the command line.
    What follows `base`, or `bench` and any but base, is theirs, --help included.
    """
    if words[:1] == ["base"]:
        return argparse.Namespace(command="base", words=words[1:])
    if words[:1] == ["bench"] and words[1:2] in ([name] for name in BENCHES):
        return argparse.Namespace(command=words[1], words=words[2:])
    return build_parser().parse_args(words)


def positive_int(text: str) -> int:
    """An argparse type: a whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not above 0")
    return value


def run_in_venv() -> int:
    """Start this command again with the environment's Python and give back its exit code."""
    command = [str(venv_python()), str(ROOT / "dev.py"), *sys.argv[1:]]
    if os.name != "nt":
        os.execv(command[0], command)  # one process, so that signals reach the one that works
    return subprocess.call(command)


def run_tests(pytest_arguments: list[str]) -> int:
    """Run pytest in the repository's root, as a script: `-m pytest` would put the root on sys.path."""
    return subprocess.call(
        [str(venv_python().parent / "pytest"), "--durations=10", *pytest_arguments], cwd=ROOT
    )


def run_lint() -> int:
    """Run ruff and mypy, all of it even if the first one complains."""
    checks = (["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"])
    tools = venv_python().parent
    return max([subprocess.call([str(tools / tool), *words], cwd=ROOT) for tool, *words in checks])


def main() -> int:
    """Run the command line; returns the exit code."""
    # The user's words first: a typo should not cost a set-up of minutes.
    arguments = parse_arguments(sys.argv[1:])
    try:
        ensure_environment()
        if Path(sys.prefix).resolve() != VENV.resolve():
            return run_in_venv()
        if arguments.command == "test":
            return run_tests(arguments.pytest_arguments)
        if arguments.command == "lint":
            return run_lint()
        if arguments.command == "base":
            return run_base(arguments.words)
        if arguments.command in BENCHES:
            suite = [arguments.command] if arguments.command in SUITES else []
            command = [str(venv_python()), "-m", BENCHES[arguments.command], *suite, *arguments.words]
            return subprocess.call(command, env=repository_environment())
        if arguments.command == "bench":
            return run_base(bench_words(arguments.size, arguments.work, arguments.packed))
        # So that the host process is stopped too when this one is told to end.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        # These need the environment's packages, so they cannot be imported before.
        if arguments.command == "host":
            from devtools.host_command import run_host

            return run_host(arguments.port, arguments.checkpoint)
        from devtools.demo import DemoOptions, run_demo

        chosen = {name: value for name, value in vars(arguments).items() if name != "command"}
        return run_demo(DemoOptions(**chosen))
    except DevToolError as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("dev.py: stopped", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
