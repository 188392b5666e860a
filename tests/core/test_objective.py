"""The loss, noise levels and learning rates."""

import pytest
import torch

from cns_core.objective import prediction_error, total_loss
from cns_core.schedule import NoiseLevels, learning_rate_factor


def test_eq8_and_masked_errors():
    prediction, target = torch.zeros(2, 1, 2, 2), torch.tensor([[[[1.0, 2], [3, 4]]], [[[0, 0], [0, 2]]]])
    assert prediction_error(prediction, target).tolist() == [7.5, 1.0]
    mask = torch.tensor([[[[1.0, 0], [0, 0]]], [[[0, 0], [0, 0.5]]]])
    assert prediction_error(prediction, target, mask).tolist() == [1.0, 4.0]
    penalties = {"L_reg": torch.tensor(0.25), "guard": torch.tensor(0.5)}
    assert total_loss(torch.tensor(2.0), torch.tensor(1.0), 10.0, penalties) == 2 + 10 + 0.75
    assert total_loss(torch.tensor(2.0), None, 10.0, {}) == 2


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
    # and what a sampler makes of a perfect prediction leads back to it
    torch.testing.assert_close(levels.prediction(z_t, z0, sigma / alpha), target, atol=1e-4, rtol=1e-4)


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
