"""Which attention layer a weight lies in, and what people call it."""

import pytest

from cns_core.places import ELSEWHERE, in_places, places_of
from cns_core.projections import ProjectionLayout
from cns_core.weight_scopes import ATTENTION, EVERYTHING, weights_in

SD15 = {
    **{
        f"input_blocks.{n}.1": (1, f"down {label}")
        for n, label in zip((1, 2, 4, 5, 7, 8), ("0.0", "0.1", "1.0", "1.1", "2.0", "2.1"), strict=True)
    },
    "middle_block.1": (1, "middle"),
    **{f"output_blocks.{n}.1": (1, f"up {n // 3}.{n % 3}") for n in range(3, 12)},
}
SDXL = {
    **{f"input_blocks.{n}.1": (2, label) for n, label in ((4, "down 1.0"), (5, "down 1.1"))},
    **{f"input_blocks.{n}.1": (10, label) for n, label in ((7, "down 2.0"), (8, "down 2.1"))},
    "middle_block.1": (10, "middle"),
    **{f"output_blocks.{n}.1": (10, f"up 0.{n}") for n in range(3)},
    **{f"output_blocks.{n}.1": (2, f"up 1.{n - 3}") for n in range(3, 6)},
}


def shapes_of(model):
    """Of a U-Net's weights, as far as they matter here."""
    found = {"time_embed.0.weight": (4, 4), "input_blocks.1.0.in_layers.2.weight": (4, 4, 3, 3)}
    for layer, (blocks, _) in model.items():
        found[f"{layer}.proj_in.weight"] = (4, 4)
        for block in range(blocks):
            for part in ("attn1.to_k", "attn2.to_q", "attn2.to_k", "attn2.to_v"):
                wide = 6 if part in ("attn2.to_k", "attn2.to_v") else 4
                found[f"{layer}.transformer_blocks.{block}.{part}.weight"] = (4, wide)
    return found


@pytest.mark.parametrize("model", [SD15, SDXL], ids=["SD 1.5", "SDXL"])
def test_layers_are_named_as_in_diffusers_and_come_in_order(model):
    keys_and_values = weights_in(shapes_of(model), "keys and values")
    places = places_of(keys_and_values, keys_and_values)
    assert [place.label for place in places] == [label for _, label in model.values()]
    for place, (layer, (blocks, _)) in zip(places, model.items(), strict=True):
        assert len(place.keys) == len(place.values) == blocks and len(place.names) == 2 * blocks
        assert all(name.startswith(f"{layer}.") for name in place.names)


@pytest.mark.parametrize("scope", [ATTENTION, EVERYTHING])
def test_every_weight_is_in_one_place(scope):
    shapes = shapes_of(SD15)
    weights = weights_in(shapes, scope)
    places = places_of(weights_in(shapes, "keys and values"), weights)
    assert sorted(name for place in places for name in place.names) == sorted(weights.names)
    middle = next(place for place in places if place.label == "middle")
    assert "middle_block.1.transformer_blocks.0.attn1.to_k" in middle.names
    assert middle.keys == ("middle_block.1.transformer_blocks.0.attn2.to_k",)
    rest = [place.names for place in places if place.label == ELSEWHERE]
    assert rest == ([("time_embed.0", "input_blocks.1.0.in_layers.2")] if scope == EVERYTHING else [])


def test_places_without_a_weight_are_left_out():
    keys_and_values = weights_in(shapes_of(SD15), "keys and values")
    some = keys_and_values.only([n for n in keys_and_values.names if n.startswith("output_blocks.3.")])
    assert [place.label for place in places_of(keys_and_values, some)] == ["up 1.0"]


def test_layers_of_another_u_net_go_by_their_own_names():
    names = tuple(f"blocks.{n}.attn2.to_{which}" for n in (0, 2) for which in "kv")
    layout = ProjectionLayout(names, ((4, 6),) * 4)
    places = places_of(layout, layout)
    assert [place.label for place in places] == ["blocks.0", "blocks.2"]
    assert places[1].names == names[2:]


def test_a_layout_of_some_names_keeps_order_and_shapes():
    layout = ProjectionLayout(("a", "b", "c"), ((1, 2), (3, 4), (5, 6)))
    assert layout.only({"c", "a", "not there"}) == ProjectionLayout(("a", "c"), ((1, 2), (5, 6)))
    assert layout.only(()).total == 0


def test_layers_are_chosen_by_name():
    keys_and_values = weights_in(shapes_of(SD15), "keys and values")
    places = places_of(keys_and_values, keys_and_values)
    chosen = in_places(places, "up 1.0,middle\n down 0.1 ")
    assert {name.partition(".transformer")[0] for name in chosen} == {
        "output_blocks.3.1",
        "middle_block.1",
        "input_blocks.2.1",
    }
    with pytest.raises(ValueError, match=r"no layer 'up 9.0'.*down 0.0, down 0.1.*up 3.2"):
        in_places(places, "middle, up 9.0")
