"""Time and peak memory of one training step beside a bare forward and backward pass of the same U-Net.

    python3 dev.py test -- --collect-only -q   # once, for the environment
    .venv/bin/python benchmarks/step_cost.py [--pixels 128] [--steps 8]

Each variant runs in a process of its own on the seeded random checkpoint, so that its peak is its own. The
bare pass is forward plus backward to the activations of every cross-attention, with frozen weights: nothing
can train K/V with less. Batch 2 everywhere: the image-free step holds one concept image and its prior.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil  # comes with ComfyUI

ROOT = Path(__file__).resolve().parent.parent
VARIANTS = ("bare forward and backward", "step, no prior, batch 2", "step, image-free prior, batch 1 + 1")
_WARM_UP = 2


def measure(variant: str, checkpoint: Path, pixels: int, steps: int) -> dict[str, Any]:
    """Seconds per step (median, spread) and peak memory in MB above the loaded models, of one variant."""
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]
    sys.path.append(str(ROOT))
    from devtools.paths import comfyui_directory

    sys.path.insert(0, str(comfyui_directory()))
    import comfy.cli_args
    import torch

    comfy.cli_args.args.cpu = not torch.cuda.is_available()
    comfy.cli_args.args.base_directory = tempfile.mkdtemp()
    import comfy.sd

    from cns_core.host.backend import HostBackend, training_mode

    with torch.inference_mode():
        model, clip, *_ = comfy.sd.load_checkpoint_guess_config(str(checkpoint), output_vae=False)
    generator = torch.Generator().manual_seed(0)
    with training_mode():
        vectors = {"clip_l": torch.zeros(768)}
        backend = HostBackend(model, clip, "<x>", vectors, {})
        latents = torch.randn(2, 4, pixels // 8, pixels // 8, generator=generator)
        run = _bare if variant.startswith("bare") else _training
        with backend.hung({}), torch.no_grad():
            # A forward pass of everything first: lazily read weights and host buffers count as loaded.
            features = backend.encode(["a photo of a dog"], vectors)
            t = torch.tensor([500], device=backend.device)
            backend.predict(latents[:1].to(backend.device), t, features)
        with _PeakMemory(torch) as memory:
            seconds = run(variant, backend, latents, vectors, steps)
    kept = seconds[_WARM_UP:]
    return {
        "variant": variant,
        "median_s": round(statistics.median(kept), 4),
        "spread_s": round(max(kept) - min(kept), 4),
        "peak_mb_above_loaded": round(memory.megabytes, 1),
        "pixels": pixels,
        "device": str(backend.device),
        "torch": torch.__version__,
    }


def _bare(variant: str, backend: Any, latents: Any, vectors: Any, steps: int) -> list[float]:
    import torch

    from cns_core.backend import TextFeatures

    t, seconds = torch.tensor([500, 500], device=backend.device), []
    with backend.hung({}):
        features = TextFeatures.stack([backend.encode(["a photo of a dog"], vectors).detached()] * 2)
        # The first cross-attention reads the text, so a gradient to it needs the whole backward pass.
        features.cross.requires_grad_()
        for _ in range(steps + _WARM_UP):
            begin = time.perf_counter()
            backend.predict(latents.to(backend.device), t, features).square().mean().backward()
            features.cross.grad = None
            _synchronise(torch)
            seconds.append(time.perf_counter() - begin)
    return seconds


def _training(variant: str, backend: Any, latents: Any, vectors: Any, steps: int) -> list[float]:
    import torch

    from cns_core.delta import PackedDelta
    from cns_core.host.model import model_layout
    from cns_core.masks import NeuronMask
    from cns_core.settings import TrainSettings
    from cns_core.training import ConceptTrainer, LatentImage, TrainingData

    layout = model_layout(backend.model)
    generator = torch.Generator().manual_seed(0)
    share = {n: torch.rand(s, generator=generator) < 0.065 for n, s, _ in layout.slices()}
    images = tuple(LatentImage(z, ("a photo of <x>",), ("a photo of dog",)) for z in latents)
    without = "no prior" in variant
    settings = TrainSettings(
        steps=steps + _WARM_UP, batch_size=2 if without else 1, prior="none" if without else "image-free"
    )
    delta = PackedDelta(NeuronMask.from_dense(layout, share), device=backend.device)
    seconds: list[float] = []
    trainer = ConceptTrainer(backend, TrainingData(images), delta, vectors, settings)
    trainer.run(lambda report: seconds.append(report.seconds))
    return seconds


def _synchronise(torch: Any) -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class _PeakMemory:
    """The most memory used within the block beyond what was in use at its start, in MB.

    On a GPU as its allocator counts; else the resident memory of this process, looked at every few
    milliseconds: the system's own high-water mark would still be that of loading the model.
    """

    def __init__(self, torch: Any) -> None:
        self._torch = torch
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self.megabytes = 0.0

    def __enter__(self) -> _PeakMemory:
        if self._torch.cuda.is_available():
            self._torch.cuda.reset_peak_memory_stats()
            self._before = self._torch.cuda.memory_allocated()
        else:
            self._before = self._most = psutil.Process().memory_info().rss
            self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._torch.cuda.is_available():
            self._most = self._torch.cuda.max_memory_allocated()
        else:
            self._done.set()
            self._watcher.join()
        self.megabytes = (self._most - self._before) / 2**20

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._done.wait(0.003):
            self._most = max(self._most, process.memory_info().rss)


def main() -> None:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=layout)
    parser.add_argument("--pixels", type=int, default=128)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--variant", choices=VARIANTS, help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.variant:
        found = measure(arguments.variant, arguments.checkpoint, arguments.pixels, arguments.steps)
        print(json.dumps(found))
        return
    sys.path.append(str(ROOT))
    from devtools.random_checkpoint import write_random_checkpoint

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = write_random_checkpoint(Path(folder) / "random.safetensors")
        for variant in VARIANTS:
            command = [sys.executable, __file__, "--variant", variant, "--checkpoint", str(checkpoint)]
            command += ["--pixels", str(arguments.pixels), "--steps", str(arguments.steps)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
            print(done.stdout.strip(), flush=True)


if __name__ == "__main__":
    main()
