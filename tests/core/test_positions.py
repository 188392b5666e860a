import torch
from hypothesis import given
from hypothesis import strategies as st

from cns_core.positions import PackedPositions


@given(st.sets(st.integers(0, 400_000), max_size=50))
def test_positions_come_back(chosen):
    positions = torch.tensor(sorted(chosen), dtype=torch.int64)
    packed = PackedPositions(positions)
    assert len(packed) == len(chosen)
    assert torch.equal(packed.unpacked(), positions)


def test_the_ends_of_a_block_and_an_empty_block_between():
    positions = torch.tensor([0, 32_767, 32_768, 65_535, 65_536, 131_071, 400_000])
    assert torch.equal(PackedPositions(positions).unpacked(), positions)


def test_two_bytes_each():
    assert PackedPositions(torch.arange(0, 200_000, 2)).nbytes() < 2.01 * 100_000
