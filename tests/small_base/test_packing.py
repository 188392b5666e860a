"""A packed base: small, exact in what it promises, and refused when it is anything else."""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from small_base.files import MissingStageError, frozen, trained_steps
from small_base.layout import SIZES, TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX
from small_base.packed import packing
from small_base.packed.card import read_figures
from small_base.packed.packing import (
    PackedFileError,
    digest,
    expand,
    expanded_state,
    networks,
    pack,
    read_packed,
)
from small_base.packed.quantisation import dequantise_rows, quantise_rows
from small_base.training.loop import save_checkpoint
from small_base.training.text_encoder import TOKEN_TABLE, TextEncoder, untrained_rows
from small_base.training.unet import new_unet
from small_base.training.vae import SD15_LATENT_SCALE, Vae

SMALL = SIZES["s"]
STEPS = {"vae": 3, "clip": 4, "unet": 5}
USED_IDS = [49406, 49407, *range(300, 420)]


def sparse(module: nn.Module) -> nn.Module:
    """Random weights in two rows of each matrix, else zeros, so that packing takes no time; all vectors."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            drawn = torch.randn(parameter[:2].shape, generator=generator) * 0.1
            parameter.zero_()
            parameter[:2] = drawn
    return frozen(module)


@pytest.fixture(scope="module")
def made() -> Iterator[dict[str, Any]]:
    """Networks in the place of trained ones."""
    made = {"unet": sparse(new_unet(SMALL.channel_mult)), "vae": sparse(Vae())}
    text = sparse(TextEncoder(SMALL.text_layers, USED_IDS))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "load_unet", lambda *_: made["unet"])
        patch.setattr(packing, "load_vae", lambda *_: made["vae"])
        patch.setattr(packing, "load_text", lambda *_: (text, USED_IDS))
        patch.setattr(packing, "trained_steps", lambda *_: STEPS)
        yield {**made, "text": text}


@pytest.fixture(scope="module")
def packed(made: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A packed base."""
    folder = tmp_path_factory.mktemp("packed")
    return pack(folder / "work", SMALL, folder / "out")


@pytest.fixture(scope="module")
def checkpoint(packed: Path) -> dict[str, Tensor]:
    """What it expands to."""
    return expanded_state(packed)


@pytest.fixture
def no_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    """Packs without the whole checkpoint, which takes seconds and only gives the digest."""
    monkeypatch.setattr(packing, "full_checkpoint", lambda *_: {"a": torch.zeros(1)})


def rows_of_all_sizes() -> Tensor:
    rows = torch.randn(12, 2, 40, generator=torch.Generator().manual_seed(1))
    rows *= torch.logspace(-7, 3, 12)[:, None, None]
    rows[3] = 0
    rows[4, :, 1:] = 0
    return rows


@pytest.mark.parametrize("bits", range(4, 9))
def test_quantised_weights_are_at_most_half_a_factor_off(bits: int) -> None:
    weights = rows_of_all_sizes()
    numbers, factors = quantise_rows(weights, bits)
    levels = 2 ** (bits - 1) - 1
    assert numbers.dtype == torch.int8 and factors.dtype == torch.float16
    assert numbers.shape == weights.shape and factors.shape == (12,)
    assert numbers.abs().max() == levels
    steps = factors.double()[:, None, None]
    again = dequantise_rows(numbers, factors)
    assert again.dtype == torch.float16
    rounding = again.double().abs() * 2**-11 + 2**-25  # fp16's own, and that of its smallest numbers
    assert bool(((again.double() - weights.double()).abs() <= steps / 2 * (1 + 1e-6) + rounding).all())
    assert not again[3].any()
    # The factor is as fine as fp16 has it.
    wanted = weights.abs().amax((1, 2)).double() / levels
    assert bool((factors.double() >= wanted * (1 - 1e-6)).all())
    assert bool((factors.double() <= wanted * (1 + 2**-10) + 2**-23).all())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e7])
def test_what_diverged_does_not_come_back_finite(value: float) -> None:
    """So that the checkpoint, which has to be finite, is refused."""
    weights = torch.ones(2, 3)
    weights[1, 2] = value
    again = dequantise_rows(*quantise_rows(weights))
    assert again[0].tolist() == pytest.approx([1.0] * 3, rel=2**-9) and not again[1].isfinite().all()


def test_dequantising_is_rounded_once() -> None:
    factors = torch.arange(1, 0x7BFF, 13, dtype=torch.int16).view(torch.float16)
    factors = factors[factors < 500]
    numbers = torch.arange(-127, 128, dtype=torch.int8).expand(len(factors), -1).contiguous()
    exact = numbers.numpy().astype(np.float64) * factors.numpy().astype(np.float64)[:, None]
    assert np.array_equal(dequantise_rows(numbers, factors).numpy(), exact.astype(np.float16))


def test_quantising_refuses_what_does_not_fit() -> None:
    for bits in (3, 9):
        with pytest.raises(ValueError, match="give 4 to 8"):
            quantise_rows(torch.ones(2, 2), bits)
    with pytest.raises(ValueError, match=r"torch.float32 \(2, 2\)"):
        dequantise_rows(torch.ones(2, 2), torch.ones(2).half())
    with pytest.raises(ValueError, match=r"float16 \(3,\)"):
        dequantise_rows(torch.ones(2, 2, dtype=torch.int8), torch.ones(3).half())


def test_a_packed_base_says_what_it_is(packed: Path) -> None:
    content = read_packed(packed)
    assert packed.name == "base-s.safetensors.xz" and packed.stat().st_size < 8_000_000
    assert content.size == SMALL and content.bits == 8
    assert content.used_ids == USED_IDS and content.steps == STEPS
    assert sorted(path.name for path in packed.parent.iterdir()) == ["base-s.md", packed.name]


def test_networks_come_back(packed: Path, made: dict[str, Any], checkpoint: dict[str, Tensor]) -> None:
    for part, network, prefix in zip(
        ("unet", "vae", "text"), networks(packed), (UNET_PREFIX, VAE_PREFIX, TEXT_PREFIX), strict=True
    ):
        assert not network.training
        original = dict(made[part].named_parameters())
        for name, parameter in network.named_parameters():
            assert not parameter.requires_grad and parameter.dtype == torch.float32
            theirs = original[name].detach()
            if name == TOKEN_TABLE:
                in_file = checkpoint[prefix + name][USED_IDS]
            else:
                in_file = checkpoint[prefix + name]
            assert torch.equal(parameter, in_file.float()), name
            if part == "vae" or parameter.ndim == 1:
                assert torch.equal(parameter, theirs.half().float()), name
            else:
                largest = theirs.abs().flatten(1).amax(1)
                off = (parameter - theirs).abs().flatten(1).amax(1)
                assert bool((off <= 0.501 * largest / 127 + largest * 2**-11 + 1e-6).all()), name


def test_the_checkpoint_is_whole_and_the_hosts_factor_exact(checkpoint: dict[str, Tensor]) -> None:
    assert len([name for name in checkpoint if ".encoder.layers." in name]) == 12 * 16
    assert checkpoint[VAE_PREFIX + "vae_scale"] == torch.tensor(SD15_LATENT_SCALE)
    table = checkpoint[TEXT_PREFIX + TOKEN_TABLE]
    assert torch.equal(table[20_000:], torch.cat((untrained_rows()[20_000:-2].half(), table[-2:])))


def test_every_machine_makes_the_same(packed: Path, made: dict[str, Any], tmp_path: Path) -> None:
    """The same networks make the same file; what it expands to follows by exact arithmetic."""
    with torch.random.fork_rng():
        torch.manual_seed(99)
        again = pack(tmp_path, SMALL, tmp_path / "new" / "folder")
    assert again.read_bytes() == packed.read_bytes()
    content = read_packed(packed)
    assert content.sha256 in (packed.parent / "base-s.md").read_text()


def test_digest_hears_everything() -> None:
    state = {"a": torch.zeros(2, 3), "b": torch.ones(1)}
    others = [
        {"a": torch.zeros(2, 3), "b": torch.ones(1) * 2},
        {"a": torch.zeros(3, 2), "b": torch.ones(1)},
        {"a": torch.zeros(2, 3), "c": torch.ones(1)},
        {"a": torch.zeros(2, 3, dtype=torch.int32), "b": torch.ones(1)},
        dict(reversed(state.items())),
    ]
    assert len({digest(state), *map(digest, others)}) == 6
    assert digest(state) == "0e50c243c5d2752063e38ffa866871790dc00c43bd89d63799f585d7579440cf"


def test_expand_writes_a_whole_checkpoint(
    packed: Path, checkpoint: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "models" / "base.safetensors"
    expand(packed, out)
    written = load_file(out)
    assert written.keys() == checkpoint.keys()
    assert all(torch.equal(written[name], checkpoint[name]) for name in checkpoint)
    assert all(written[name].dtype == checkpoint[name].dtype for name in checkpoint)
    assert [path.name for path in out.parent.iterdir()] == [out.name]
    assert str(out) in capsys.readouterr().out
    out.unlink()  # 300 MB
    with pytest.raises(ValueError, match=r"name a \.safetensors file"):
        expand(packed, tmp_path / "base.ckpt")


@pytest.mark.usefixtures("no_checkpoint")
def test_fewer_bits_make_a_smaller_file(packed: Path, made: dict[str, Any], tmp_path: Path) -> None:
    smaller = pack(tmp_path, SMALL, tmp_path, bits=5)
    assert smaller.stat().st_size < packed.stat().st_size
    assert read_packed(smaller).bits == 5 and "at 5 bits a weight" in (tmp_path / "base-s.md").read_text()


@pytest.mark.usefixtures("no_checkpoint")
def test_too_large_a_file_is_not_written(
    made: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packing, "FILE_LIMIT", 1000)
    with pytest.raises(ValueError, match=r"base-s takes \d.*such as --bits 7"):
        pack(tmp_path, SMALL, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_damaged_and_foreign_files_are_refused(packed: Path, tmp_path: Path) -> None:
    whole, tensors = packed.read_bytes(), {"a": torch.zeros(1)}
    wrong = {
        "cut off after": whole[: len(whole) // 2],
        "it is cut off after 0 bytes": b"",
        "7 bytes follow its end": whole + b"trailer",
        "not a whole packed base": b"\x89PNG" + whole,
        "not a whole packed base: Corrupt": whole[:5000] + bytes([whole[5000] ^ 1]) + whole[5001:],
        "safetensors file of something else": lzma.compress(save_tensors(tensors)),
        "is not a whole packed base: ": lzma.compress(b"nothing of the kind"),
        "its format is 'emoji base 9'": with_header({"format": "emoji base 9"}),
        "its size is 'xxl', known are s, m": with_header({"size": "xxl"}),
        "'used_ids'": with_header({}, without="used_ids"),
        "whole packed base": with_header({"used_ids": 3}),
    }
    for index, (message, data) in enumerate(wrong.items()):
        path = tmp_path / str(index)
        path.write_bytes(data)
        with pytest.raises(PackedFileError, match=message) as caught:
            read_packed(path)
        assert str(path) in str(caught.value)
    with pytest.raises(FileNotFoundError):
        read_packed(tmp_path / "absent")


def test_what_unpacks_to_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "CONTENT_LIMIT", 1_000_000)
    path = tmp_path / "bomb"
    path.write_bytes(lzma.compress(bytes(50_000_000)))
    with pytest.raises(PackedFileError, match="more than 1000000 bytes"):
        read_packed(path)
    path.write_bytes(lzma.compress(b"", preset=9))  # would have xz reserve 64 MB
    monkeypatch.setattr(packing, "FILE_LIMIT", 10)
    with pytest.raises(PackedFileError, match="at most 10"):
        read_packed(path)


def test_networks_that_do_not_fit_are_refused(packed: Path, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(with_header({}))
    with pytest.raises(PackedFileError, match=r"size s: \d+ tensors of its unet .* such as a\."):
        networks(path)
    path.write_bytes(with_header({"used_ids": [3, 3]}))
    with pytest.raises(PackedFileError, match="used_ids"):
        networks(path)


def test_another_checkpoint_than_was_packed_is_refused(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = read_packed(packed)
    content.states["text"]["final_layer_norm.bias"][5] += 1
    monkeypatch.setattr(packing, "read_packed", lambda _: content)
    out = tmp_path / "base.safetensors"
    with pytest.raises(PackedFileError, match=f"not {content.sha256}"):
        expand(packed, out)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("no_checkpoint")
def test_the_card_holds_what_bench_found(made: dict[str, Any], packed: Path, tmp_path: Path) -> None:
    before = (packed.parent / "base-s.md").read_text()
    assert "has not been judged" in before and "{" not in before
    figures = [
        {"figure": "names", "value": 71.26, "bar": 60.0, "unit": "%", "of": 120, "met": True},
        {"figure": "plain", "value": 3, "bar": 4, "met": False},
    ]
    (tmp_path / "bench-s.json").write_text(json.dumps(figures))
    card = (pack(tmp_path, SMALL, tmp_path).parent / "base-s.md").read_text()
    assert "| names | 71.3 % | 60.0 % | yes |\n| plain | 3 | 4 | no |\n" in card
    assert "has not been judged" not in card
    for needed in ("64 x 64", "122 of 49408 words", "CREDITS.md", "| 5 |", "base-s.safetensors.xz"):
        assert needed in card
    assert all(len(line) <= 110 or line.startswith("|") for line in card.splitlines())


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"figure": "x"}]'])
def test_figures_that_are_none_are_refused(tmp_path: Path, text: str) -> None:
    assert read_figures(tmp_path, SMALL) is None
    (tmp_path / "bench-s.json").write_text(text)
    with pytest.raises(ValueError, match=r"bench-s.json.*bar, figure, met, value"):
        read_figures(tmp_path, SMALL)


def test_steps_are_those_of_the_checkpoints(tmp_path: Path) -> None:
    for index, name in enumerate(("vae", "text")):
        save_checkpoint(tmp_path / f"{name}-s.ckpt", {"index": index})
    with pytest.raises(MissingStageError, match="run `unet` first"):
        trained_steps(tmp_path, SMALL)
    save_checkpoint(tmp_path / "unet-s.ckpt", {"index": 7})
    assert trained_steps(tmp_path, SMALL) == {"vae": 0, "clip": 1, "unet": 7}


def with_header(changes: dict[str, Any], without: str = "") -> bytes:
    """A packed file of one tensor with a changed header."""
    header = {
        "format": packing.FORMAT,
        "size": "s",
        "bits": 8,
        "used_ids": [1, 2],
        "steps": STEPS,
        "sha256": "0",
        **changes,
    }
    header.pop(without, None)
    return lzma.compress(save_tensors({"unet.a": torch.zeros(1)}, {"base": json.dumps(header)}))
