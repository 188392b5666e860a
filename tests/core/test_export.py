"""A memory as tensors for other programs: nothing of a change is lost, what they cannot hold is refused."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, save

from cns_core.export.lora import diffusers_lora, stock_lora
from cns_core.identity import ModelIdentity
from cns_core.memory import ConceptMemory, LearnedConcept
from cns_core.methods.cns.change import CnsChange
from cns_core.methods.cns.masks import NeuronMask
from cns_core.methods.dense_kv import DenseChange
from cns_core.methods.directions.change import DirectionsChange
from cns_core.projections import ProjectionLayout

BLOCK = "input_blocks.{}.1.transformer_blocks.0.attn2.to_{}"
IN_DIFFUSERS = "unet.down_blocks.{}.attentions.0.transformer_blocks.0.attn2.to_{}"
BLOCKS = [(number, which) for number in (1, 3) for which in "kv"]
LAYOUT = ProjectionLayout(tuple(BLOCK.format(*block) for block in BLOCKS), ((3, 8), (3, 8), (6, 8), (6, 8)))


def memory(*changes):
    concepts = (
        LearnedConcept(
            name=f"thing {n}",
            token=f"<thing-{n}>",
            class_word="thing",
            kind="subject",
            captions=(f"a <thing-{n}>",),
            method="cns",
            change=change,
            token_vectors={"clip_l": torch.zeros(1, 8)},
            settings={},
            losses={},
            learned_at="",
        )
        for n, change in enumerate(changes)
    )
    return ConceptMemory(ModelIdentity("SD1", "ab" * 32), LAYOUT, tuple(concepts))


def neurons(*rows):
    """In so many rows of each projection."""
    masks = {
        name: (torch.arange(out) < count)[:, None].expand(out, width).clone()
        for count, (name, (out, width), _) in zip(rows, LAYOUT.slices(), strict=True)
    }
    mask = NeuronMask.from_dense(LAYOUT, masks)
    return CnsChange(mask, torch.linspace(0.5, 1, mask.count()).half())


def directions():
    g = torch.Generator().manual_seed(0)
    answers = torch.randn(sum(out for out, _ in LAYOUT.shapes), 2, generator=g).half()
    return DirectionsChange(LAYOUT, answers, torch.randn(2, 8, generator=g), torch.ones(2))


@pytest.mark.parametrize(
    ("changes", "rank"),
    [((neurons(1, 0, 6, 2),), 6), ((neurons(1, 0, 6, 2), directions()), 8), ((directions(),), 2)],
    ids=["masks", "directions on masks", "directions"],
)
def test_diffusers_gets_products_of_one_rank_that_are_the_whole_change(changes, rank):
    one = memory(*changes)
    tensors = diffusers_lora(one)
    for name, block in zip(LAYOUT.names, BLOCKS, strict=True):
        key, expected = IN_DIFFUSERS.format(block[0] // 2, block[1]), one.laid()[name].in_full()
        if not expected.any():
            assert f"{key}.lora_A.weight" not in tensors
            continue
        down, up = tensors[f"{key}.lora_A.weight"], tensors[f"{key}.lora_B.weight"]
        assert len(down) == up.shape[1] == rank
        torch.testing.assert_close(up @ down, expected)
    for read in (tensors, stock_lora(one)):
        assert load(save(read)).keys() == read.keys(), "a file holds no tensor twice"


def test_what_is_beyond_attention_goes_by_its_original_name():
    names = ("time_embed.0", "input_blocks.1.1.transformer_blocks.0.attn2.to_q.bias", "out.0", "out.2")
    shapes = ((4, 4), (5, 1), (6, 1), (4, 36))
    elsewhere = ProjectionLayout(names, shapes)
    g = torch.Generator().manual_seed(1)
    change = {n: torch.randn(shape, generator=g).half() for n, shape in zip(names, shapes, strict=True)}
    change["out.2"][1:] = 0
    moved = memory(directions(), DenseChange(elsewhere, change))
    tensors = stock_lora(moved)
    assert torch.equal(
        tensors["lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_q.diff_b"],
        change[names[1]].reshape(-1),
    )
    assert torch.equal(tensors["lora_unet_out_0.diff"], change["out.0"].reshape(-1))
    for name, rank in (("time_embed.0", 4), ("out.2", 1)):
        key = f"lora_unet_{name.replace('.', '_')}"
        up, down = tensors[f"{key}.lora_up.weight"], tensors[f"{key}.lora_down.weight"]
        assert len(down) == rank == float(tensors[f"{key}.alpha"])
        assert torch.equal(up.float() @ down.float(), change[name].float())
    with pytest.raises(ValueError, match=r"time_embed\.0 is not in an attention block.*form ComfyUI"):
        diffusers_lora(moved)


def test_the_pack_imports_none_of_the_programs_that_it_exports_for():
    """Tests have them; users need not."""
    root = Path(__file__).parents[2]
    for path in (*(root / "cns_core").rglob("*.py"), *(root / "nodes").glob("*.py")):
        found = re.search(
            r"^\s*(from|import) (diffusers|peft|accelerate)\b", path.read_text("utf-8"), re.MULTILINE
        )
        assert found is None, path
