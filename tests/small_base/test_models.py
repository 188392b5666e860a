"""The base model's networks without a host: sizes, names, what is made up for the checkpoint, the sampler."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from small_base.layout import SIZES, TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX, BaseSize, full_checkpoint
from small_base.training.sampling import chosen_timesteps, initial_noise, noise_schedule, sample
from small_base.training.text_encoder import (
    VOCABULARY,
    TextEncoder,
    full_text_state,
    identity_layer,
    token_rows,
    untrained_rows,
)
from small_base.training.unet import new_unet, noise_and_middle, predict_noise
from small_base.training.vae import Vae

USED_IDS = [49406, 49407, 320, 2368, 736]


def ids_of(*words: int) -> Tensor:
    """A text of the given words as the tokenizer has it: (1, 77)."""
    return torch.tensor([[49406, *words] + [49407] * (76 - len(words))])


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module with its zero-initialised weights made random: as it is after some training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if not parameter.any():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.02)
    return module


@pytest.mark.parametrize(("name", "millions"), [("s", 26), ("m", 44)])
def test_unet_has_its_size(name: str, millions: float) -> None:
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in new_unet(SIZES[name].channel_mult).parameters())
    print(f"U-Net {name}: {count / 1e6:.2f} M parameters")
    assert count / 1e6 == pytest.approx(millions, rel=0.05)


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
def test_unet_takes_latents_of_any_size_and_starts_at_zero(size: BaseSize) -> None:
    unet = new_unet(size.channel_mult)
    t, context = torch.tensor([0, 999]), torch.randn(2, 77, 768)
    with torch.no_grad():
        for shape in (size.latent_shape, (4, 7, 9)):
            latents = torch.randn(2, *shape)
            noise = predict_noise(unet, latents, t, context)
            assert noise.shape == latents.shape
            assert not noise.any(), "the untrained network should predict no noise: its last layer is zero"


def test_unet_hears_time_and_text_and_trains_under_autocast() -> None:
    unet = shaken(new_unet((1, 1)))
    latents = torch.randn(1, 4, 8, 8).expand(3, -1, -1, -1)
    context = torch.randn(2, 77, 768)[[0, 0, 1]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        noise = predict_noise(unet, latents, torch.tensor([10, 900, 10]), context)
    assert noise.isfinite().all()
    assert (noise[0] - noise[1]).abs().mean() > 1e-3 and (noise[0] - noise[2]).abs().mean() > 1e-3
    noise.float().square().mean().backward()
    without = [name for name, parameter in unet.named_parameters() if not parameter.grad.any()]
    assert not without, f"no gradient reaches {without}"


def test_unet_predicts_the_same_while_it_trains() -> None:
    unet = shaken(new_unet((1,)))
    given = torch.randn(2, 4, 8, 8), torch.tensor([10, 700]), torch.randn(2, 77, 768)
    training = predict_noise(unet, *given)
    with torch.no_grad():
        sampling = predict_noise(unet, *given)
    assert training.requires_grad and training.any()
    assert torch.allclose(training, sampling, atol=1e-5)


@pytest.mark.parametrize("channel_mult", [(), (1, 0)])
def test_unet_refuses_what_is_no_width(channel_mult: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="channel_mult"):
        new_unet(channel_mult)


def test_the_middle_is_told_beside_the_noise() -> None:
    unet = shaken(new_unet((1, 1)))
    given = torch.randn(2, 4, 8, 8), torch.tensor([10, 700]), torch.randn(2, 77, 768)
    noise, middle = noise_and_middle(unet, *given)
    assert torch.equal(noise, predict_noise(unet, *given)) and middle.shape == (2, 320, 4, 4)
    assert not unet.middle_block[-1]._forward_hooks


def test_parts_of_the_checkpoint_have_their_types() -> None:
    vae, text = Vae().state_dict(), TextEncoder(1, USED_IDS).state_dict()
    assert text["embeddings.token_embedding.weight"].shape == (len(USED_IDS), 768)
    checkpoint = full_checkpoint({"a": torch.zeros(1)}, vae, text, USED_IDS)
    for prefix, dtype in (
        (UNET_PREFIX, torch.float16),
        (TEXT_PREFIX, torch.float16),
        (VAE_PREFIX, torch.float32),
    ):
        assert {tensor.dtype for name, tensor in checkpoint.items() if name.startswith(prefix)} == {dtype}


def test_the_checkpoints_order_is_that_of_its_names_and_nan_is_refused() -> None:
    vae, text = Vae().state_dict(), TextEncoder(0, USED_IDS).state_dict()
    unet = {"b": torch.zeros(1), "a": torch.ones(1)}
    checkpoint = full_checkpoint(unet, vae, text, USED_IDS)
    again = full_checkpoint(dict(reversed(unet.items())), dict(reversed(vae.items())), text, USED_IDS)
    assert list(checkpoint) == list(again)
    assert list(checkpoint)[:2] == [UNET_PREFIX + "a", UNET_PREFIX + "b"]
    with pytest.raises(ValueError, match=r"diffusion_model\.a.*fp16"):
        full_checkpoint({"a": torch.tensor(1e6)}, vae, text, USED_IDS)


def test_vae_goes_to_latents_and_back_to_pictures() -> None:
    vae, pictures = Vae(), torch.rand(2, 3, 64, 48)
    with torch.no_grad():
        latents = vae.encode(pictures)
        again = vae.decode(latents * 1e4)
    assert latents.shape == (2, 4, 8, 6) and again.shape == pictures.shape
    assert again.isfinite().all() and again.min() >= 0 and again.max() <= 1
    with pytest.raises(ValueError, match="multiples of 8"):
        vae.encode(torch.rand(1, 3, 64, 50))


def test_untrained_rows_are_the_same_bits_everywhere() -> None:
    rows = untrained_rows()
    digest = hashlib.sha256(rows.half().numpy().tobytes()).hexdigest()
    assert digest == "1a07990e0fadab518a4be461cc61588074f9402c54cc6d9ea922635c1b9c48be"
    assert torch.equal(rows.half().float(), rows), "fp16 should hold them exactly"
    assert rows.std() == pytest.approx(0.018, rel=0.01) and abs(rows.mean()) < 1e-4
    alike = torch.corrcoef(rows[:500]).fill_diagonal_(0).abs().max()
    assert alike < 0.2, "different words should be hardly correlated"


def test_token_rows_puts_trained_rows_at_their_ids() -> None:
    trained = torch.randn(len(USED_IDS), 768)
    rows = token_rows(USED_IDS, trained)
    assert rows.shape == (VOCABULARY, 768) and torch.equal(rows[USED_IDS], trained)
    others = torch.ones(VOCABULARY, dtype=torch.bool)
    others[USED_IDS] = False
    assert torch.equal(rows[others], untrained_rows()[others])
    with pytest.raises(ValueError, match="5 used ids"):
        token_rows(USED_IDS, trained[:4])


@pytest.mark.parametrize("used_ids", [[], [3, 3], [-1], [VOCABULARY]])
def test_used_ids_have_to_be_distinct_tokens(used_ids: list[int]) -> None:
    with pytest.raises(ValueError, match="used_ids"):
        TextEncoder(1, used_ids)


def test_text_encoder_is_causal_and_tells_words_apart() -> None:
    encoder = TextEncoder(1, USED_IDS)
    with torch.no_grad():
        one, other = encoder(ids_of(320, 2368)), encoder(ids_of(320, 736))
    assert one.shape == (1, 77, 768)
    torch.testing.assert_close(one[:, :2], other[:, :2])
    apart = (one - other).abs().mean(dim=(0, 2))
    assert apart[2] > 0.2, "the word itself should be heard at its place"
    with pytest.raises(ValueError, match="78 tokens"):
        encoder(torch.zeros(1, 78, dtype=torch.int64))


def test_full_text_state_is_the_same_encoder() -> None:
    """A whole CLIP-L, its identities and all, gives bit for bit what the small one gives for any word."""
    encoder = shaken(TextEncoder(1, USED_IDS))
    whole = TextEncoder(12)
    whole.load_state_dict(full_text_state(encoder.state_dict(), USED_IDS))
    ids = ids_of(320, 2368, 1000, 40000)
    with torch.no_grad():
        assert torch.equal(whole(ids), encoder(ids))
    with pytest.raises(ValueError, match="used_ids"):
        full_text_state(encoder.state_dict(), None)


def test_identity_layers_change_no_bit() -> None:
    layer = TextEncoder(1, USED_IDS).encoder.layers[0]
    layer.load_state_dict(identity_layer())
    x = torch.randn(2, 77, 768) * 100
    with torch.no_grad():
        assert torch.equal(layer(x, None, is_causal=True), x)


def test_text_encoder_trains_used_rows() -> None:
    encoder = TextEncoder(1, USED_IDS)
    encoder(ids_of(320, 9999)).square().sum(dim=1).mean().backward()
    moved = encoder.embeddings.token_embedding.weight.grad.abs().sum(dim=1) > 0
    assert moved.tolist() == [True, True, True, False, False]


def test_noise_schedule_is_sds() -> None:
    kept = noise_schedule()
    assert kept.shape == (1000,) and bool((kept.diff() < 0).all())
    sigmas = ((1 - kept) / kept).sqrt()
    # What every SD 1.5 sampler knows by heart.
    assert sigmas[0] == pytest.approx(0.0292, abs=1e-4) and sigmas[-1] == pytest.approx(14.6146, abs=1e-3)


Network = Callable[[Tensor, Tensor, Tensor], Tensor]


def gaussian_oracle(deviation: float) -> Network:
    """Predicts the noise perfectly where latents are normal around the context's first number."""
    kept = noise_schedule()

    def predict(x: Tensor, t: Tensor, context: Tensor) -> Tensor:
        mean, a = context[:, 0, 0].view(-1, 1, 1, 1), kept[t].view(-1, 1, 1, 1)
        return (1 - a).sqrt() * (x - a.sqrt() * mean) / (a * deviation**2 + 1 - a)

    return predict


def texts(*means: float) -> Tensor:
    return torch.tensor(means).view(-1, 1, 1).expand(-1, 77, 768)


def test_sampler_finds_a_point() -> None:
    context = texts(0.5, -1.0, 2.0)
    drawn = sample(gaussian_oracle(0.0), context, texts(0.0), (4, 8, 8), seeds=[1, 2, 3], cfg=1.0)
    torch.testing.assert_close(drawn, context[:, :1, :1, None].expand(3, 4, 8, 8), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("steps", "error"), [(100, 2e-3), (25, 0.01), (10, 0.1)])
def test_sampler_follows_the_exact_solution(steps: int, error: float) -> None:
    """For normal data the way from noise to picture is known: the distance in standard deviations stays."""
    deviation, mean = 0.6, 0.5
    seeds = list(range(8))
    drawn = sample(
        gaussian_oracle(deviation),
        texts(*[mean] * 8),
        texts(0.0),
        (4, 8, 8),
        seeds=seeds,
        steps=steps,
        cfg=1.0,
    )
    kept = noise_schedule()[-1]
    noise = initial_noise(seeds, (4, 8, 8))
    score = (noise - kept.sqrt() * mean) / (kept * deviation**2 + 1 - kept).sqrt()
    assert (drawn - (mean + deviation * score)).abs().max() < error


def test_timesteps_go_from_the_last_to_the_first() -> None:
    assert len(chosen_timesteps(25)) == 25 and chosen_timesteps(1) == [999]
    for steps in (2, 25, 100, 1000):
        chosen = chosen_timesteps(steps)
        assert chosen == sorted(set(chosen), reverse=True) and (chosen[0], chosen[-1]) == (999, 0)


def test_guidance_goes_beyond_the_text() -> None:
    drawn = sample(gaussian_oracle(0.0), texts(1.0), texts(0.25), (4, 4, 4), seeds=[0], cfg=3.0)
    torch.testing.assert_close(drawn, torch.full((1, 4, 4, 4), 0.25 + 3.0 * 0.75), atol=1e-4, rtol=0)


def test_a_picture_depends_on_its_own_seed_alone() -> None:
    oracle = gaussian_oracle(1.0)
    many = sample(oracle, texts(0.1, 0.2, 0.3), texts(0.0), (4, 8, 8), seeds=[5, 6, 7])
    one = sample(oracle, texts(0.2), texts(0.0), (4, 8, 8), seeds=[6])
    torch.testing.assert_close(many[1:2], one)
    assert (many[0] - many[1]).abs().mean() > 0.1


def test_sampler_refuses_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="2 seeds for 1 texts"):
        sample(gaussian_oracle(1.0), texts(0.1), texts(0.0), (4, 8, 8), seeds=[5, 6])
    with pytest.raises(ValueError, match="0 steps"):
        sample(gaussian_oracle(1.0), texts(0.1), texts(0.0), (4, 8, 8), seeds=[5], steps=0)
