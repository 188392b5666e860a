import pytest
import torch

from cns_core.projections import ProjectionLayout, find_projections, flat_weights

SHAPES = {
    "input_blocks.1.1.transformer_blocks.0.attn1.to_k.weight": (320, 320),
    "input_blocks.1.1.transformer_blocks.0.attn2.to_q.weight": (320, 320),
    "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 768),
    "input_blocks.1.1.transformer_blocks.0.attn2.to_v.weight": (320, 768),
    "middle_block.1.transformer_blocks.0.attn2.to_k.weight": (640, 768),
    "middle_block.1.transformer_blocks.0.attn2.to_v.weight": (640, 768),
    "out.2.weight": (4, 320, 3, 3),
}


def test_finds_exactly_the_cross_attention_keys_and_values():
    layout = find_projections(SHAPES)
    assert len(layout.names) == 4 and all(
        ".attn2.to_" in n and not n.endswith("weight") for n in layout.names
    )
    assert layout.total == 2 * 768 * (320 + 640)
    assert [where.start for _, _, where in layout.slices()] == [0, 320 * 768, 640 * 768, 1280 * 768]


def test_a_model_without_them_is_told_what_was_found():
    with pytest.raises(ValueError, match=r"Found 1 weights in: double_blocks"):
        find_projections({"double_blocks.0.img_attn.qkv.weight": (3072, 3072)})


@pytest.mark.parametrize(
    "change",
    [{"x.attn2.to_k.weight": (320, 768)}, {"x.attn2.to_k.weight": (3, 9), "x.attn2.to_v.weight": (3, 9)}],
)
def test_odd_structures_are_refused(change):
    with pytest.raises(ValueError, match="Unusual cross-attention layout"):
        find_projections({**SHAPES, **change})


def test_flat_weights_checks_names_and_shapes():
    layout = ProjectionLayout(("a", "b"), ((2, 3), (4, 3)))
    weights = {"b": torch.ones(4, 3), "a": torch.zeros(2, 3)}
    assert [n for n, _ in flat_weights(weights, layout)] == ["a", "b"]
    with pytest.raises(ValueError, match="no projection 'b'"):
        list(flat_weights({"a": torch.zeros(2, 3)}, layout))
    with pytest.raises(ValueError, match=r"shape \(3, 4\); expected \(4, 3\)"):
        list(flat_weights({**weights, "b": torch.ones(3, 4)}, layout))
