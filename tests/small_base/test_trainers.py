"""Each tool makes steps on a tiny world, and goes on from what it saved as if nothing had happened."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import torch

from small_base.files import (
    MissingStageError,
    judged_on,
    load_stage,
    load_text,
    load_tutor,
    load_unet,
    load_vae,
    load_world,
    trained_on,
)
from small_base.judge.judge import Judge
from small_base.judge.train_judge import JudgeTrainer, tutor_trainer
from small_base.layout import SIZES
from small_base.training import train_unet
from small_base.training.contrastive import name_texts
from small_base.training.loop import Stretch, Trainer, train
from small_base.training.strangers import Strangers
from small_base.training.text_encoder import untrained_rows
from small_base.training.tokenizer import Tokenizer
from small_base.training.train_text import TextTrainer, base_text_trainer
from small_base.training.train_unet import UNetTrainer
from small_base.training.train_vae import VaeTrainer, mean_psnr
from small_base.world.world import World
from small_base.world.world_file import write_world

SMALL = SIZES["s"]
CPU = torch.device("cpu")
COMMON = {"seed": 3, "batch": 4, "rate": 1e-3}


@pytest.fixture(scope="module", autouse=True)
def quick_muon() -> Iterator[None]:
    """Muon without making its steps orthogonal, which it does in bfloat16 whatever the CPU: minutes a step
    where that is emulated. `test_matrix_optimizer.py` is about that.
    """
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(torch.optim, "Muon", partial(torch.optim.Muon, ns_steps=0))
        yield


@pytest.fixture(scope="module")
def work(quick_muon: None, tiny_world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A work folder in which every tool has made two steps."""
    folder = tmp_path_factory.mktemp("work")
    write_world(tiny_world, folder / "world.bin")
    with pytest.MonkeyPatch.context() as monkeypatch:
        # Of 64 drawings in bfloat16, minutes where a CPU has no instructions for it.
        monkeypatch.setattr(train_unet, "_SHEET", 4)
        for make in (text_trainer, vae_trainer, tutor, judge_trainer, unet_trainer):
            train(make(folder), Stretch(folder, minutes=10, steps=2))
    return folder


def vae_trainer(folder: Path, decoder_only: bool = False) -> Trainer:
    world = trained_on(load_world(folder), SMALL)
    tutor = load_tutor(folder, SMALL, world)
    return VaeTrainer(SMALL, world, tutor, CPU, **COMMON, decoder_only=decoder_only)


def text_trainer(folder: Path) -> Trainer:
    world = load_world(folder)
    known = trained_on(world, SMALL)
    return base_text_trainer(SMALL, known, CPU, **COMMON)


def tutor(folder: Path) -> TextTrainer:
    return tutor_trainer(SMALL, judged_on(load_world(folder), SMALL), CPU, **COMMON)


def judge_trainer(folder: Path) -> Trainer:
    world = load_world(folder)
    tutored = tutor(folder)
    tutored.load(load_stage(folder, "tutor-s", "tutor"))
    return JudgeTrainer(SMALL, judged_on(world, SMALL), tutored, load_vae(folder, SMALL), CPU, **COMMON)


def unet_trainer(folder: Path) -> Trainer:
    world = load_world(folder)
    known = trained_on(world, SMALL)
    vae, (text, _), tokenizer = (
        load_vae(folder, SMALL),
        load_text(folder, SMALL),
        Tokenizer(world.tokenizer_files),
    )
    return UNetTrainer(
        SMALL,
        known,
        Strangers(world, SMALL, vae, text, tokenizer, 3),
        vae,
        text,
        load_tutor(folder, SMALL, known),
        tokenizer,
        CPU,
        **COMMON,
        pool=16,
        fresh=0.25,
        compiled=False,
    )


@pytest.mark.parametrize("make", [vae_trainer, text_trainer, tutor, judge_trainer, unet_trainer])
def test_goes_on_from_its_checkpoint(work: Path, make: Callable[[Path], Trainer]) -> None:
    saved, again = make(work), make(work)
    state = torch.load(work / f"{saved.name}.ckpt", weights_only=True)
    assert state["index"] == 2
    again.load(state["trainer"])
    left, right = _tensors(again.state()), _tensors(state["trainer"])
    assert left.keys() == right.keys() and len(left) > 20
    assert all(torch.equal(left[name], right[name]) for name in left)
    before = {name: tensor.clone() for name, tensor in left.items()}
    assert all(value.isfinite() for value in again.step(2, 1.0).values())
    after = _tensors(again.state())
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("average"))


def test_logs_are_lines_of_json(work: Path) -> None:
    for name in ("vae-s", "text-s", "tutor-s", "judge-s", "unet-s"):
        lines = [json.loads(line) for line in (work / f"{name}.jsonl").read_text().splitlines()]
        assert {line["step"] for line in lines} <= {1, 2} and lines[0]["steps_per_second"] > 0
    assert (work / "samples" / "unet-s-0000002.png").stat().st_size > 1000


def test_a_decoder_trained_alone_leaves_the_latents_as_they_are(work: Path, tmp_path: Path) -> None:
    for name in ("world.bin", "text-s.ckpt", "vae-s.ckpt"):
        shutil.copy2(work / name, tmp_path / name)
    before = load_vae(tmp_path, SMALL)
    train(vae_trainer(tmp_path, decoder_only=True), Stretch(tmp_path, minutes=10, steps=2))
    after = load_vae(tmp_path, SMALL)
    pictures = torch.rand(2, 3, 64, 64)
    latents = before.encode(pictures)
    assert torch.equal(after.encode(pictures), latents)
    assert not torch.equal(after.decode(latents), before.decode(latents))


def test_the_words_of_the_base_stay_far_apart(work: Path) -> None:
    text, used_ids = load_text(work, SMALL)
    rows = text.embeddings.token_embedding.weight
    assert torch.equal(rows, 4 * untrained_rows()[used_ids])
    for layer in text.encoder.layers:
        for last in (layer.self_attn.out_proj, layer.mlp.fc2):
            assert last.weight.norm() < 0.401


def test_held_out_things_are_for_the_judge_alone(work: Path) -> None:
    world = load_world(work)
    assert [thing.name for thing in trained_on(world, SMALL).objects] == ["cat", "pea", "ball"]
    assert [thing.name for thing in judged_on(world, SMALL).objects] == ["cat", "pea", "ball", "sun"]


def test_the_judge_is_a_transformers_folder_that_the_score_node_reads(work: Path) -> None:
    from cns_core.evaluation.clip_scores import ClipScorer

    pictures = torch.rand(3, 64, 64, 3)
    judge = Judge(work / "judge-s")
    ours = judge.pictures(pictures.permute(0, 3, 1, 2)) @ judge.texts(["a photo of a cat"]).T
    scorer = ClipScorer.load(str(work / "judge-s"), "cpu")
    theirs = scorer.encode_images(pictures) @ scorer.encode_prompts(["a photo of a cat"]).T
    assert torch.allclose(ours, theirs, atol=2e-3)


def test_a_missing_stage_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingStageError, match="run `build` first"):
        load_world(tmp_path)
    with pytest.raises(MissingStageError, match="run `vae` first"):
        load_vae(tmp_path, SMALL)
    with pytest.raises(MissingStageError, match="run `unet` first"):
        load_unet(tmp_path, SMALL)


def test_every_name_is_in_its_text(tiny_world: World) -> None:
    texts = name_texts(tiny_world, random.Random(1))
    assert [texts[index].endswith(f"a {thing.name}") for index, thing in enumerate(tiny_world.objects)] == [
        True
    ] * 4


def test_psnr() -> None:
    true = torch.zeros(2, 3, 8, 8)
    assert mean_psnr(true + 0.1, true) == pytest.approx(20.0, abs=1e-4)


def _tensors(state: object, prefix: str = "") -> dict[str, torch.Tensor]:
    if isinstance(state, torch.Tensor):
        return {prefix: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {
        name: tensor
        for key, value in items
        for name, tensor in _tensors(value, f"{prefix}.{key}".strip(".")).items()
    }
