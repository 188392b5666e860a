import pytest
import torch

from cns_core.delta import PackedDelta
from cns_core.masks import NeuronMask
from cns_core.objective import combine, prediction_error, regularisation
from cns_core.projections import ProjectionLayout
from cns_core.schedule import NoiseLevels, learning_rate_factor

LAYOUT = ProjectionLayout(("k", "v"), ((3, 4), (2, 4)))


def mask_of(*flat):
    bits = torch.zeros(LAYOUT.total, dtype=torch.bool)
    bits[list(flat)] = True
    return NeuronMask.from_dense(LAYOUT, {n: bits[w].reshape(s) for n, s, w in LAYOUT.slices()})


def values_at(values):
    """Of all entries, 0 where none is given."""
    flat = torch.zeros(LAYOUT.total)
    flat[list(values)] = torch.tensor(list(values.values()))
    return flat


def applied(delta):
    return torch.cat([delta.weight_function(n)(torch.zeros(s)).reshape(-1) for n, s, _ in LAYOUT.slices()])


def test_earlier_values_stay_and_only_the_mask_can_move():
    delta = PackedDelta(mask_of(1, 5, 13), mask_of(5, 7, 19), values_at({5: 0.5, 7: 0.7, 19: 1.9}))
    assert delta.values.tolist() == [0, 0.5, 0] and delta.start.tolist() == [0.5]
    assert delta.shared.tolist() == [1]
    expected = torch.zeros(20)
    expected[[5, 7, 19]] = torch.tensor([0.5, 0.7, 1.9])
    assert torch.equal(applied(delta), expected)
    with torch.no_grad():
        delta.values.copy_(torch.tensor([10.0, 20, 30]))
    delta.update()
    expected[[1, 5, 13]] = torch.tensor([10.0, 20, 30])
    assert torch.equal(applied(delta), expected)


def test_gradients_reach_exactly_the_packed_values():
    delta = PackedDelta(mask_of(0, 6, 15))
    weight = torch.randn(3, 4)
    coefficients = torch.arange(12.0).reshape(3, 4)
    (delta.weight_function("k")(weight) * coefficients).sum().backward()
    assert delta.values.grad.tolist() == [0, 6, 0]


def test_the_weight_itself_is_never_touched_and_a_disabled_delta_is_nothing():
    delta = PackedDelta(mask_of(0), None, None)
    with torch.no_grad():
        delta.values.fill_(3)
    delta.update()
    weight = torch.ones(3, 4, dtype=torch.float16)
    out = delta.weight_function("k")(weight)
    assert out.dtype == torch.float16 and out[0, 0] == 4 and weight.sum() == 12
    delta.enabled = False
    assert delta.weight_function("k")(weight) is weight


def test_what_earlier_concepts_left_is_added_in_every_precision_that_comes_by():
    delta = PackedDelta(mask_of(1), mask_of(1, 3), values_at({1: 0.5, 3: 0.25}).half())
    for dtype in (torch.float32, torch.float16, torch.float32):
        weight = torch.ones(3, 4, dtype=dtype)
        for _ in range(2):
            out = delta.weight_function("k")(weight)
            assert out.dtype == dtype and out.reshape(-1).tolist() == [1, 1.5, 1, 1.25] + [1] * 8
        assert weight.sum() == 12
    with torch.inference_mode():  # a preview is drawn
        drawn = delta.weight_function("k")(torch.ones(3, 4, dtype=torch.bfloat16))
    out = delta.weight_function("k")(torch.ones(3, 4, dtype=torch.bfloat16))
    assert torch.equal(out, drawn)
    out.sum().backward()
    assert delta.values.grad.tolist() == [1]


def test_wrong_number_of_earlier_values():
    with pytest.raises(ValueError, match="20 K/V entries"):
        PackedDelta(mask_of(0), mask_of(1, 2), torch.zeros(3))


def test_eq7_against_a_plain_loop():
    g = torch.Generator().manual_seed(0)
    w0, w_earlier, w = (torch.randn(20, generator=g) for _ in range(3))
    concept, earlier = [1, 4, 5, 9, 17], [4, 9, 12]
    first = sum(float(w[i] - w_earlier[i]) ** 2 for i in concept if i in earlier)
    second = sum(float(w[i] - w0[i]) ** 2 for i in concept)
    both = [i for i in concept if i in earlier]
    shared = torch.tensor([concept.index(i) for i in both])
    got = regularisation((w - w0)[concept], (w_earlier - w0)[both], shared, 0.3, 0.07)
    assert float(got) == pytest.approx(0.3 * first + 0.07 * second, rel=1e-5)


def test_eq8_and_masked_errors():
    prediction, target = torch.zeros(2, 1, 2, 2), torch.tensor([[[[1.0, 2], [3, 4]]], [[[0, 0], [0, 2]]]])
    assert prediction_error(prediction, target).tolist() == [7.5, 1.0]
    mask = torch.tensor([[[[1.0, 0], [0, 0]]], [[[0, 0], [0, 0.5]]]])
    assert prediction_error(prediction, target, mask).tolist() == [1.0, 4.0]
    parts = combine(
        torch.tensor([2.0, 4]), torch.tensor([1.0, 0.5]), torch.tensor([1.0, 2]), 10.0, torch.tensor(0.25)
    )
    assert parts.diffusion == 2 and parts.prior == 1 and parts.total == 2 + 10 + 0.25


@pytest.mark.parametrize("kind", ["epsilon", "v"])
def test_targets_rebuild_the_latents(kind):
    levels = NoiseLevels(torch.linspace(0.99, 0.01, 10), kind)
    g = torch.Generator().manual_seed(1)
    z0, noise, t = (
        torch.randn(4, 2, 3, 3, generator=g),
        torch.randn(4, 2, 3, 3, generator=g),
        torch.tensor([0, 3, 6, 9]),
    )
    z_t, target = levels.add_noise(z0, noise, t), levels.target(z0, noise, t)
    alpha = levels.alphas_cumprod[t].sqrt().reshape(-1, 1, 1, 1)
    sigma = (1 - alpha**2).sqrt()
    rebuilt = (z_t - sigma * target) / alpha if kind == "epsilon" else alpha * z_t - sigma * target
    torch.testing.assert_close(rebuilt, z0, atol=1e-4, rtol=1e-4)


def test_min_snr_weights():
    levels = NoiseLevels(torch.tensor([0.9, 0.5, 0.1]), "epsilon")
    t = torch.arange(3)
    assert levels.min_snr_weight(t, 0).tolist() == [1, 1, 1]
    torch.testing.assert_close(levels.min_snr_weight(t, 5), torch.tensor([5 / 9, 1.0, 1.0]))
    v = NoiseLevels(levels.alphas_cumprod, "v")
    torch.testing.assert_close(v.min_snr_weight(t, 5), torch.tensor([5 / 10, 1 / 2, (1 / 9) / (10 / 9)]))


def test_learning_rate_over_time():
    factors = [learning_rate_factor(i, 10, "constant", 3) for i in range(10)]
    assert factors == [0.25, 0.5, 0.75] + [1.0] * 7
    cosine = [learning_rate_factor(i, 100, "cosine", 0) for i in range(100)]
    assert cosine[0] == 1 and cosine[50] == pytest.approx(0.5) and 0 < cosine[-1] < 0.001
    assert cosine == sorted(cosine, reverse=True)
