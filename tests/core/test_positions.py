import torch
from hypothesis import given
from hypothesis import strategies as st

from cns_core.positions import PackedPositions


@given(st.sets(st.integers(0, 2_000), max_size=50))
def test_positions_come_back(chosen):
    positions = torch.tensor(sorted(chosen), dtype=torch.int64)
    packed = PackedPositions(positions)
    assert len(packed) == len(chosen)
    assert torch.equal(packed.unpacked(), positions)


def test_gaps_about_the_size_of_a_byte_and_far_beyond():
    positions = torch.tensor([0, 255, 511, 768, 1_280, 70_000, 2**31 - 1])
    assert torch.equal(PackedPositions(positions).unpacked(), positions)


def test_the_first_position_may_be_far_from_the_beginning():
    positions = torch.tensor([400_000, 400_001])
    assert torch.equal(PackedPositions(positions).unpacked(), positions)


def test_one_byte_each_and_eight_more_for_a_wide_gap():
    assert PackedPositions(torch.arange(0, 200_000, 2)).nbytes() == 100_000
    assert PackedPositions(torch.tensor([1, 1_000, 1_001])).nbytes() == 3 + 8
