import torch

from cns_core.adam import Adam


def walk(make, steps=200):
    """Where ten values are led by gradients of very different sizes, noise included."""
    g = torch.Generator().manual_seed(0)
    target, scale = torch.randn(10, generator=g), torch.logspace(-4, 2, 10)
    values = torch.zeros(10, requires_grad=True)
    optimizer = make([{"params": [values], "lr": 1e-2}])
    for _ in range(steps):
        values.grad = scale * (values.detach() - target + 0.3 * torch.randn(10, generator=g))
        optimizer.step()
    return values.detach(), optimizer.state[values]


def test_it_goes_where_pytorchs_goes():
    ours, _ = walk(Adam)
    theirs, _ = walk(torch.optim.Adam)
    assert theirs.abs().max() > 0.5
    torch.testing.assert_close(ours, theirs, atol=2e-3, rtol=0)


def test_six_bytes_of_state_a_value():
    _, state = walk(Adam, steps=1)
    moments = [value for value in state.values() if value.ndim]
    assert sum(value.numel() * value.element_size() for value in moments) == 6 * 10


def test_a_value_without_a_gradient_stays():
    values = torch.ones(3, requires_grad=True)
    Adam([{"params": [values], "lr": 1.0}]).step()
    assert values.tolist() == [1, 1, 1]
