"""What a forward keeps for its backward: counted on small inputs, and told from there for larger ones."""

import weakref

import pytest
import torch
from torch import nn

from cns_core.footprint import Footprint, Growth, Kept, kept_for_backward, recomputed, storage_of


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.inner, self.outer = nn.Conv2d(4, width, 3, padding=1), nn.Conv2d(width, 4, 1)
        self.runs = 0

    def forward(self, x, more=None):
        self.runs += 1
        return x + self.outer(torch.tanh(self.inner(x)))


class Network(nn.Module):
    """Weights that are as large as a row of its latents: a part of what is kept does not grow with rows."""

    def __init__(self):
        super().__init__()
        self.blocks = nn.ModuleList([Block(6), Block(10)])
        self.learned = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x):
        x = torch.einsum("oc,bchw->bohw", torch.eye(4) + self.learned, x)
        for block in self.blocks:
            x = block(x)
        return (x * x).mean()


@pytest.fixture
def network():
    torch.manual_seed(0)
    return Network()


def count(network, rows, side):
    constants = {storage_of(p) for p in network.parameters()}
    latents = torch.randn(rows, 4, side, side)
    return kept_for_backward(lambda: network(latents), list(network.blocks), constants)


def test_each_storage_is_counted_once_and_weights_never(network):
    kept = count(network, 2, 8)
    floats = 2 * 8 * 8 * 4  # bytes of a channel
    # Of a block: what its convolutions read, the second of which tanh has put out and keeps as well.
    assert kept.inside[0] == (4 + 6) * floats and kept.inside[1] == (4 + 10) * floats
    assert kept.read == (4 * floats, 4 * floats)
    # The latents, and the last sum.
    assert kept.outside == pytest.approx(8 * floats, abs=500)
    assert kept.whole == kept.outside + sum(kept.inside)
    assert kept.recomputed == kept.outside + 8 * floats + kept.inside[1]
    assert not network.blocks[0]._forward_hooks and not network.blocks[0]._forward_pre_hooks


def test_nothing_of_it_is_left_afterwards(network):
    """A tensor that its own graph keeps, as what tanh puts out, is let go as well."""
    seen = []

    class Watched(nn.Module):
        def forward(self, x):
            y = torch.tanh(x)
            seen.append(weakref.ref(y))
            return y

    watched = Watched()
    first = network.blocks[0]
    kept_for_backward(lambda: watched(first(torch.randn(1, 4, 8, 8))).sum(), [first, watched], set())
    assert seen[0]() is None


def test_nothing_is_kept_where_nothing_is_learned(network):
    network.requires_grad_(False)
    assert count(network, 1, 8).whole == 0


def test_large_batches_are_told_from_small_ones(network):
    found = Footprint.counted(lambda rows, side: count(network, rows, side), 8)
    for rows, side in ((4, 8), (1, 32), (3, 24)):
        kept = count(network, rows, side)
        assert found.whole.bytes(rows, side**2) == pytest.approx(kept.whole, rel=0.01)
        assert found.recomputed.bytes(rows, side**2) == pytest.approx(kept.recomputed, rel=0.01)


def test_what_does_not_grow_is_told_apart():
    def kept(rows, cells):
        return 1000 + rows * (10 + 2 * cells)

    growth = Growth.of(kept(1, 64), kept(2, 64), kept(1, 256), 64, 256)
    assert (growth.fixed, growth.per_row, growth.per_cell) == (1000, 10, 2)
    assert growth.bytes(8, 4096) == kept(8, 4096)


def test_a_model_without_blocks_keeps_as_much_either_way():
    kept = Kept(100, (), ())
    assert kept.whole == kept.recomputed == 100


def test_recomputed_blocks_give_the_same_gradients_bit_for_bit(network):
    latents = torch.randn(2, 4, 8, 8)
    network(latents).backward()
    before = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    with recomputed(list(network.blocks)):
        loss = network(latents)
    assert "forward" not in vars(network.blocks[0])
    runs = network.blocks[0].runs
    loss.backward()
    assert network.blocks[0].runs == runs + 1
    assert all(torch.equal(p.grad, b) for p, b in zip(network.parameters(), before, strict=True))


def test_blocks_are_as_they_were_after_an_error(network):
    theirs = network.blocks[0].forward = lambda x: x  # another program's
    with pytest.raises(KeyError), recomputed(list(network.blocks)):
        raise KeyError
    assert network.blocks[0].forward is theirs and "forward" not in vars(network.blocks[1])
