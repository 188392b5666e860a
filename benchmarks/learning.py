"""How well CNS learns the held-out concepts on the small base, and how little it forgets.

    python3 dev.py bench learning --checkpoint BASE            each of the 20 concepts alone
    python3 dev.py bench learning --checkpoint BASE --set 1 --seeds 3 \\
        --methods token all random "cns without L_reg" cns

Without --set or --stream each concept is learned alone. With it they are learned one after another, and every
concept is drawn again after each. A score is CLIP-I on a scale from 0, the base drawing the class word, to
1, the concept's own pictures against each other; it can leave both ends. Every finished run is a line in
the output file, and a run that is in it is not made again; what was drawn lies in the folder beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from learning_report import kept_in, kept_name, plain_name, summary, write_sheets

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "workflows" / "images"
BUILT_IN_CLIP = ROOT / "cns_core" / "builtin_clip"
SETS = ROOT / "benchmarks" / "base" / "sets"
METHODS = ("token", "all", "random", "cns without L_reg", "cns")


class Bench:
    """One base model in a host of this process, and the judge of its pictures."""

    def __init__(self, options: argparse.Namespace) -> None:
        import comfy.sd
        import torch

        from cns_core.evaluation.clip_scores import ClipScorer

        self.torch = torch
        self.options = options
        self.model, self.clip, self.vae, _ = comfy.sd.load_checkpoint_guess_config(str(options.checkpoint))
        self.scorer = ClipScorer.load(str(options.clip_model), "cpu")
        self._ends: dict[str, tuple[float, float]] = {}

    def concept(self, folder: str) -> Any:
        """The pictures of one folder as the loader node makes a concept of them."""
        from cns_core.captions import CaptionRule
        from cns_core.concept import Concept
        from cns_core.images import Bucketing, images_from_files, list_images

        said = json.loads((IMAGES / folder / "concept.json").read_text(encoding="utf-8"))
        token = f"<{said['name']}>"
        rule = CaptionRule("txt files", token, said["class_word"], said["kind"], "")
        files = list_images(IMAGES / folder)
        images, _ = images_from_files(files, rule, Bucketing(self.options.resolution, True, False))
        return Concept(said["name"], token, said["class_word"], said["kind"], images)

    def learn(self, concept: Any, memory: Any, method: str, seed: int) -> tuple[Any, dict[str, float]]:
        """The memory with one more concept, and what was selected and how long it took."""
        from cns_core.host.learn import Preview, learn
        from cns_core.host.select import select
        from cns_core.settings import SelectionSettings, TrainSettings

        o, begin = self.options, time.perf_counter()
        selection = SelectionSettings(
            select_by="top percent" if o.top_percent else "budget",
            top_percent=o.top_percent or 30.0,
            budget_percent=o.budget_percent,
        )
        neurons = select(self.model, self.clip, concept, memory, selection, lambda done, total: None)
        neurons = replace(neurons, selection=self._as_method(neurons.selection, method, seed))
        selected = time.perf_counter() - begin
        keeps = 0.0 if method != "cns" else 1.0
        settings = TrainSettings(
            steps=o.steps,
            batch_size=o.batch_size,
            neuron_lr=0.0 if method == "token" else o.neuron_lr,
            token_lr=o.token_lr,
            keep_earlier=keeps * o.keep_earlier,
            keep_base=keeps * o.keep_base,
            prior_weight=o.prior_weight,
            seed=seed,
        )
        learned = learn(
            self.model, self.clip, self.vae, concept, neurons, memory, None, settings, Preview()
        ).memory
        mask = neurons.selection.concept_mask
        return learned, {
            "neurons": mask.count(),
            "share_of_kv": mask.share(),
            "selection_s": round(selected, 1),
            "training_s": round(time.perf_counter() - begin - selected, 1),
        }

    def _as_method(self, selection: Any, method: str, seed: int) -> Any:
        from cns_core.methods.cns.masks import NeuronMask

        mask = selection.concept_mask
        if method == "all":
            mask = NeuronMask.full(mask.layout)
        elif method == "random":
            generator = self.torch.Generator().manual_seed(seed)
            share = mask.share()
            mask = NeuronMask.from_dense(
                mask.layout,
                {n: self.torch.rand(s, generator=generator) < share for n, s, _ in mask.layout.slices()},
            )
        return replace(selection, concept_mask=mask)

    def draw(self, memory: Any, prompts: Sequence[str], seed: int) -> Any:
        """One picture for each prompt, (B, H, W, 3), all at once, which takes a fraction of the time."""
        import comfy.sample

        from cns_core.host.draw import SAMPLER, SCHEDULER
        from cns_core.host.personalize import personalize

        model, clip = (
            (self.model, self.clip) if memory is None else personalize(self.model, self.clip, memory)
        )
        torch, side = self.torch, self.options.resolution // 8
        shape = (4, side, side)
        generators = [torch.Generator().manual_seed(seed * 1000 + index) for index in range(len(prompts))]
        noise = torch.stack([torch.randn(shape, generator=generator) for generator in generators])
        told = torch.cat([self._conditioning(clip, prompt)[0][0] for prompt in prompts])
        latents = comfy.sample.sample(
            model,
            noise,
            20,
            self.options.cfg,
            SAMPLER,
            SCHEDULER,
            [[told, {}]],
            self._conditioning(clip, ""),
            torch.zeros_like(noise),
            disable_pbar=True,
            seed=seed,
        )
        return self.vae.decode(latents)[..., :3].clamp(0, 1)

    @staticmethod
    def _conditioning(clip: Any, prompt: str) -> Any:
        return clip.encode_from_tokens_scheduled(clip.tokenize(prompt))

    def score(self, concept: Any, memory: Any, method: str, seed: int) -> dict[str, Any]:
        """CLIP-I of new pictures of the concept, on the scale from class word to its own pictures."""
        drawn = self.draw(memory, prompts_for(concept.kind, concept.token), seed)
        low, high = self._scale(concept)
        clip_i = self.scorer.clip_i(drawn, self._references(concept))
        self._keep(drawn, kept_name(concept.name, method, seed, len(memory.concepts)))
        return {"clip_i": clip_i, "class_word": low, "real": high, "score": (clip_i - low) / (high - low)}

    def _scale(self, concept: Any) -> tuple[float, float]:
        if concept.name not in self._ends:
            references = self._references(concept)
            drawn = self.draw(None, prompts_for(concept.kind, plain_word(concept)), 0)
            self._keep(drawn, plain_name(concept.name))
            count = len(references)
            # Against each other, not against themselves: the diagonal is 1 whatever the pictures.
            real = (self.scorer.clip_i(references, references) * count - 1) / (count - 1)
            self._ends[concept.name] = (self.scorer.clip_i(drawn, references), real)
        return self._ends[concept.name]

    def _references(self, concept: Any) -> Any:
        return self.torch.stack([image.pixels for image in concept.images])

    def _keep(self, pictures: Any, name: str) -> None:
        from PIL import Image

        row = self.torch.cat(list(pictures), dim=1)
        folder = kept_in(self.options.output)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((row * 255).round().byte().numpy()).save(folder / name)


def prompts_for(kind: str, word: str) -> list[str]:
    """Eight prompts in the base's own words, also with places and colours the concept was not shown on."""
    if kind == "style":
        things = ("cat", "car", "house", "tree", "dog", "apple", "guitar", "boat")
        return [f"a {thing} in {word} style" if word else f"a {thing}" for thing in things]
    if kind == "scene":
        things = ("cat", "car", "house", "dog", "apple", "guitar", "banana", "star")
        return [f"a {thing}, {word} background" if word else f"a {thing}" for thing in things]
    places = ("on a beach", "in a meadow", "in the snow", "at night")
    colours = ("purple", "grey", "orange", "teal")
    said = word if word.startswith("<") else f"{'an' if word[0] in 'aeiou' else 'a'} {word}"
    return [
        *(f"a photo of {said} {place}" for place in places),
        *(f"a photo of {said} on a {c} background" for c in colours),
    ]


def plain_word(concept: Any) -> str:
    """What the untouched base is asked for: a style or a place without a name of its own is left unsaid."""
    return concept.class_word if concept.kind == "subject" else ""


def folders_of_set(number: int) -> list[str]:
    """The folders of an ordered set's concepts, which the set calls by their names."""
    said = json.loads((SETS / f"set{number}.json").read_text(encoding="utf-8"))
    files = IMAGES.glob("*/concept.json")
    folders = {json.loads(path.read_text(encoding="utf-8"))["name"]: path.parent.name for path in files}
    return [folders[name] for name in said["concepts"]]


def run(bench: Bench, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Every run that is asked for and not in the output file yet; returns all of them."""
    done = _read(options.output)
    streams = [options.stream] if options.stream else [[folder] for folder in options.concepts]
    wanted = [
        {"stream": stream, "method": method, "seed": seed, **_settings(options)}
        for stream in streams
        for method in options.methods
        for seed in range(options.seeds)
    ]
    results = []
    for key in wanted:
        found = next((record for record in done if all(record.get(k) == v for k, v in key.items())), None)
        if found is None:
            found = {**key, "stages": _stages(bench, key)}
            with options.output.open("a", encoding="utf-8") as file:
                file.write(json.dumps(found) + "\n")
        results.append(found)
        print(_line(found), flush=True)
    return results


def _stages(bench: Bench, key: dict[str, Any]) -> list[dict[str, Any]]:
    memory, stages = None, []
    concepts = [bench.concept(folder) for folder in key["stream"]]
    for index, concept in enumerate(concepts):
        memory, facts = bench.learn(concept, memory, key["method"], key["seed"])
        scores = {c.name: bench.score(c, memory, key["method"], key["seed"]) for c in concepts[: index + 1]}
        stages.append({"learned": concept.name, **facts, "scores": scores})
        shown = ", ".join(f"{name} {s['score']:.2f}" for name, s in scores.items())
        print(f"[learning] {key['method']}, seed {key['seed']}, after {concept.name}: {shown}", flush=True)
    return stages


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    names = (
        *("steps", "batch_size", "neuron_lr", "token_lr", "keep_earlier", "keep_base", "prior_weight"),
        *("budget_percent", "top_percent", "cfg"),
    )
    return {
        "checkpoint": options.checkpoint.name,
        "resolution": options.resolution,
        **{n: getattr(options, n) for n in names},
    }


def _line(record: dict[str, Any]) -> str:
    last = record["stages"][-1]
    mean = statistics.mean(s["score"] for s in last["scores"].values())
    return (
        f"{' -> '.join(record['stream'])}, {record['method']}, seed {record['seed']}: mean score {mean:.3f}"
    )


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(prog="bench learning", description=__doc__, formatter_class=layout)
    parser.add_argument("--checkpoint", type=Path, required=True, help="the base model")
    parser.add_argument(
        "--clip-model", type=Path, default=BUILT_IN_CLIP, help="the folder of the CLIP that judges (built in)"
    )
    every = sorted(path.parent.name for path in IMAGES.glob("*/concept.json"))
    parser.add_argument("--concepts", nargs="+", choices=every, default=every, metavar="NAME")
    streams = parser.add_mutually_exclusive_group()
    streams.add_argument("--stream", nargs="+", choices=every, metavar="NAME", help="learn these in order")
    streams.add_argument("--set", type=int, choices=(1, 2, 3), help="learn this ordered set of seven")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=["cns"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--resolution", type=int, default=64)
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--neuron-lr", type=float, default=1e-3)
    parser.add_argument("--token-lr", type=float, default=1e-2)
    parser.add_argument("--keep-earlier", type=float, default=0.001)
    parser.add_argument("--keep-base", type=float, default=0.0001)
    parser.add_argument("--prior-weight", type=float, default=1.0)
    parser.add_argument("--budget-percent", type=float, default=17.0, help="of K/V, to end with")
    parser.add_argument("--top-percent", type=float, default=0.0, help="k of Eq. 3, in place of the budget")
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument(
        "--output",
        type=Path,
        default=ROOT / "demo_output" / "learning.jsonl",
        help="of the runs; other settings draw over the same pictures, so give them a file of their own",
    )
    return parser


def main() -> int:
    """Run the command line; returns the exit code."""
    options = build_parser().parse_args()
    if options.set:
        options.stream = folders_of_set(options.set)
    _host_in_this_process()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    import torch

    with torch.inference_mode():  # as the host runs nodes
        results = run(Bench(options), options)
    print(summary(results))
    for path in write_sheets(results, options.output, IMAGES):
        print(path)
    return 0


def _host_in_this_process() -> None:
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    sys.path.append(str(ROOT))
    from devtools.paths import comfyui_directory

    sys.path.insert(0, str(comfyui_directory()))
    import comfy.cli_args
    import torch

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    # A folder of its own: finished runs of earlier calls must not be taken for this one's.
    import folder_paths

    folder_paths.set_user_directory(tempfile.mkdtemp())


if __name__ == "__main__":
    raise SystemExit(main())
