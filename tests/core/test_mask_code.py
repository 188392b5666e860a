"""Masks as files keep them: exact, as small as they can be, and refused before they grow when damaged."""

import tracemalloc
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cns_core.mask_code import DEFLATED, MASK, packed_mask, unpacked_mask
from cns_core.methods.cns.masks import NeuronMask
from cns_core.projections import ProjectionLayout

SD15 = 19_169_280  # entries of keys and values


def layout_of(entries):
    return ProjectionLayout(("a.to_k",), ((1, entries),))


def mask_of(entries, density, seed=0):
    chosen = np.random.default_rng(seed).random(entries, dtype=np.float32) < density
    return NeuronMask(layout_of(entries), np.packbits(chosen))


def kept(mask):
    return packed_mask({MASK: torch.from_numpy(mask.bits.copy()), "values": torch.zeros(mask.count())})


def of(stream):
    return {DEFLATED: torch.frombuffer(bytearray(stream), dtype=torch.uint8)}


@settings(max_examples=200)
@given(
    entries=st.integers(1, 40_000),
    density=st.one_of(st.sampled_from([0, 1]), st.floats(0, 1), st.floats(0, 0.1)),
    ends=st.tuples(st.booleans(), st.booleans()),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_mask_comes_back(entries, density, ends, seed):
    chosen = mask_of(entries, density, seed).flat().copy()
    chosen[0], chosen[-1] = ends
    mask = NeuronMask(layout_of(entries), np.packbits(chosen))
    found = unpacked_mask(mask.layout, kept(mask))
    assert set(found) == {MASK, "values"} and NeuronMask(mask.layout, found[MASK].numpy()) == mask
    assert len(kept(mask).get(DEFLATED, ())) <= len(mask.bits)


@pytest.mark.parametrize(
    ("density", "most"),  # bytes of the file for each of the bits'
    [
        (0, 1 / 7),
        (0.001, 1 / 50),
        (0.01, 0.12),
        (0.065, 0.357),
        (0.17, 0.67),
        (0.5, 1),
        (0.99, 0.12),
        (1, 1 / 7),
    ],
)
def test_a_mask_takes_about_its_entropy_and_never_more_than_its_bits(density, most):
    mask = mask_of(SD15, density)
    found = kept(mask)
    size = len(found.get(DEFLATED, found.get(MASK)))
    assert size <= most * len(mask.bits)
    assert NeuronMask(mask.layout, unpacked_mask(mask.layout, found)[MASK].numpy()) == mask


def test_what_is_no_shorter_stays_and_what_is_no_mask_does():
    noise = kept(mask_of(4_000, 0.5))
    assert set(noise) == {MASK, "values"} and unpacked_mask(layout_of(4_000), noise).keys() == noise.keys()
    others = {"ups": torch.zeros(3)}
    assert packed_mask(others) == others == unpacked_mask(layout_of(4_000), others)


MASK_BITS = mask_of(4_000, 0.065).bits.tobytes()  # 500 bytes
WHOLE = zlib.compress(MASK_BITS)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (of(WHOLE[:-20]), "cut short"),
        (of(WHOLE[:-1]), "cut short"),
        (of(WHOLE + b"\0"), "something else"),
        (of(zlib.compress(MASK_BITS[:-1])), "something else"),
        (of(zlib.compress(MASK_BITS + b"\0")), "something else"),
        (of(zlib.compress(bytes(2**27))), "something else"),
        (of(WHOLE[:40] + bytes([WHOLE[40] ^ 1]) + WHOLE[41:]), "is damaged|something else"),
        (of(b"no stream of zlib's"), "is damaged"),
        (of(b"\0" * 7), "has 7 bytes; 4,000 entries take at least 7"),
        ({DEFLATED: torch.zeros(0, dtype=torch.uint8)}, "has 0 bytes"),
        ({DEFLATED: torch.zeros(500)}, "expected uint8"),
        ({DEFLATED: torch.zeros(20, 25, dtype=torch.uint8)}, "expected uint8"),
        ({**of(WHOLE), MASK: torch.zeros(500, dtype=torch.uint8)}, "both mask and mask.deflated"),
    ],
)
def test_damaged_streams(tensors, message):
    with pytest.raises(ValueError, match=message):
        unpacked_mask(layout_of(4_000), tensors)


def test_a_stream_that_would_unpack_to_much_more_is_not_unpacked():
    bomb = of(zlib.compress(bytes(2**27)))  # 130 KB for 128 MB
    tracemalloc.start()
    try:
        for entries in (
            4_000,
            2**30,
        ):  # more than the weights have; and what the weights have, if they are believed
            with pytest.raises(ValueError, match=r"something else|take at least 2,097,152"):
                unpacked_mask(layout_of(entries), bomb)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()
