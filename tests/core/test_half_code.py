"""Float16 numbers as files keep them: every bit comes back, in fewer bytes, and damage is found."""

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis.extra import numpy as arrays

from cns_core.half_code import LOWER, UPPER, packed_halves, unpacked_halves

NAMES = {"a" + LOWER, "a" + UPPER}
NORMAL = (1e-3 * torch.randn(50_000, 3, generator=torch.Generator().manual_seed(0))).half()


def bits(tensor):
    return tensor.view(torch.int16)


@settings(max_examples=200)
@given(arrays.arrays(np.uint16, arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=40)))
def test_every_bit_comes_back(numbers):
    """Of what is no number, too."""
    tensor = torch.from_numpy(numbers.view(np.float16))
    again = unpacked_halves(packed_halves({"a": tensor}))
    assert set(again) == {"a"} and again["a"].shape == tensor.shape and again["a"].dtype == torch.float16
    assert torch.equal(bits(again["a"].clone()), bits(tensor.clone()))


def test_what_training_leaves_takes_a_sixth_less():
    kept = packed_halves({"a": NORMAL})
    assert set(kept) == NAMES and kept["a" + LOWER].shape == NORMAL.shape
    assert sum(len(t.reshape(-1)) for t in kept.values()) < 0.85 * 2 * NORMAL.numel()
    assert torch.equal(bits(unpacked_halves(kept)["a"]), bits(NORMAL))


def test_strided_numbers_come_back():
    turned = NORMAL.T
    assert torch.equal(unpacked_halves(packed_halves({"a": turned}))["a"], turned)


def test_other_types_and_what_is_no_shorter_stay():
    noise = torch.from_numpy(np.random.default_rng(0).integers(0, 2**16, 999, np.uint16).view(np.float16))
    tensors = {"a": torch.ones(9), "b": torch.ones(2, dtype=torch.uint8), "c": noise, "d": noise[:0]}
    kept = packed_halves(tensors)
    assert all(kept[name] is tensor for name, tensor in tensors.items()) and len(kept) == 4
    assert unpacked_halves(kept) == kept


ENOUGH = torch.arange(100, dtype=torch.uint8)
WHOLE = zlib.compress(bytes(100))


def with_stream(stream, lower=ENOUGH, **more):
    return {"a" + LOWER: lower, "a" + UPPER: torch.frombuffer(bytearray(stream), dtype=torch.uint8), **more}


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (with_stream(WHOLE[:-1]), "a.upper.deflated is cut short"),
        (with_stream(zlib.compress(bytes(99))), "something else than 100 bytes"),
        (with_stream(zlib.compress(bytes(2**27))), "something else than 100 bytes"),
        (with_stream(b"no stream of zlib's"), "is damaged"),
        (with_stream(WHOLE, a=torch.ones(100).half()), "beside a.upper.deflated it has a, a.lower"),
        (with_stream(WHOLE, ENOUGH.float()), "a.lower is torch.float32; expected uint8"),
        ({"a" + UPPER: ENOUGH}, "expected a.lower alone"),
        ({"a" + LOWER: ENOUGH, "a" + UPPER: ENOUGH.float()}, "expected uint8"),
    ],
)
def test_damage(tensors, message):
    with pytest.raises(ValueError, match=message):
        unpacked_halves(tensors)
