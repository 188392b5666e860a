"""ComfyUI takes the base model's checkpoint for an SD 1.5, and computes what our own networks compute."""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from small_base.layout import SIZES, BaseSize, full_checkpoint
from small_base.training.sampling import noise_schedule
from small_base.training.text_encoder import TextEncoder
from small_base.training.unet import new_unet, predict_noise
from small_base.training.vae import SD15_LATENT_SCALE, Vae

TEXT = "a photo of a red apple on the beach, zebra"
# Some of its tokens: the others, "zebra" too, have untrained rows. The host's own tokenizer decides which.
UNUSED_WORD = "zebra"


class Both(NamedTuple):
    """The same random weights, rounded to what the file holds, in our modules and in the host's."""

    size: BaseSize
    unet: nn.Module
    text: TextEncoder
    vae: Vae
    host_model: Any
    host_clip: Any
    host_vae: Any
    complaints: list[str]


@pytest.fixture(scope="module", params=list(SIZES))
def both(comfy: ModuleType, tmp_path_factory: pytest.TempPathFactory, request: Any) -> Both:
    import comfy.sd1_clip

    words = comfy.sd1_clip.SD1Tokenizer().tokenize_with_weights(TEXT.replace(UNUSED_WORD, ""))["l"][0]
    used_ids = sorted({token for token, _ in words})
    size = SIZES[request.param]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet, text, vae = new_unet(size.channel_mult), TextEncoder(size.text_layers, used_ids), Vae()
        randomise(unet, text, vae)

    file = tmp_path_factory.mktemp("base") / f"base_{size.name}.safetensors"
    save_file(full_checkpoint(unet.state_dict(), vae.state_dict(), text.state_dict(), used_ids), str(file))
    for module in (unet, text):
        module.half().float()  # the file is fp16
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())
    logger = logging.getLogger()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        with torch.inference_mode():
            model, clip, host_vae, _ = comfy.sd.load_checkpoint_guess_config(
                str(file), output_vae=True, output_clip=True
            )
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    file.unlink()  # 300 MB
    complaints = [
        text for text in messages if "missing" in text or "unexpected" in text or "left over" in text
    ]
    return Both(size, unet, text, vae, model, clip, host_vae, complaints)


def randomise(unet: nn.Module, text: TextEncoder, vae: Vae) -> None:
    """Make every weight count: no zeros, no ones, and latents and pictures that are not nearly constant."""
    with torch.no_grad():
        for module in (unet, text, vae):
            for name, parameter in module.named_parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn_like(parameter) * 0.1)
                elif not parameter.any() or "encoder.layers" in name:
                    parameter.normal_(std=parameter[0].numel() ** -0.5)
                elif "taesd_" in name:
                    parameter.normal_(std=(1.5 / parameter[0].numel()) ** 0.5)
        vae.taesd_encoder[-1].weight.mul_(2)
        vae.taesd_decoder[-1].weight.mul_(0.3)
        vae.taesd_decoder[-1].bias.add_(0.5)


def same(ours: torch.Tensor, hosts: torch.Tensor, *, error: float) -> None:
    """Equal up to `error`: root mean square of the difference over the values' standard deviation."""
    ours, hosts = ours.detach().float().cpu(), hosts.float().cpu()
    assert ours.shape == hosts.shape
    assert ours.std() > 0.02, "nearly constant: this would compare nothing"
    seen = ((ours - hosts).square().mean().sqrt() / ours.std()).item()
    print(f"relative error {seen:.2e} (allowed: {error:.0e})")
    assert seen < error


def test_is_taken_for_sd15_with_nothing_missing(both: Both) -> None:
    config = both.host_model.model.model_config
    assert type(config).__name__ == "SD15"
    assert config.unet_config["channel_mult"] == list(both.size.channel_mult)
    # No SD 1.5 checkpoint has CLIP's text projection and logit scale.
    assert all("encoder.layers" not in text and "text_projection" in text for text in both.complaints), (
        both.complaints
    )
    hosts = {name for name, _ in both.host_model.model.diffusion_model.named_parameters()}
    assert hosts == {name for name, _ in both.unet.named_parameters()}


def test_the_schedule_is_the_hosts(both: Both) -> None:
    kept = noise_schedule()
    torch.testing.assert_close(
        ((1 - kept) / kept).sqrt(), both.host_model.model.model_sampling.sigmas.cpu(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("sides", [None, (10, 6), (9, 7)], ids=["own size", "oblong", "odd"])
def test_unet_is_the_hosts(comfy: ModuleType, both: Both, sides: tuple[int, int] | None) -> None:
    """The host's U-Net as samplers call it: on a noisy latent in units of sigma, it gives the clean one."""
    comfy.model_management.load_models_gpu([both.host_model])
    model = both.host_model.model
    device = both.host_model.load_device
    generator = torch.Generator().manual_seed(1)
    shape = (3, 4, *(sides or both.size.latent_shape[1:]))
    t = torch.tensor([3, 500, 999])
    latents = torch.randn(shape, generator=generator)
    context = torch.randn(3, 77, 768, generator=generator)
    kept = noise_schedule()[t].view(-1, 1, 1, 1)
    in_sigmas = latents / kept.sqrt()  # the host divides by sqrt(1 + sigma^2), which is sqrt(kept)
    sigma = model.model_sampling.sigmas[t.to(model.model_sampling.sigmas.device)].to(device)
    with torch.inference_mode():
        clean = model.apply_model(in_sigmas.to(device), sigma, c_crossattn=context.to(device)).cpu()
        ours = predict_noise(both.unet, latents, t, context)
    hosts = (in_sigmas - clean) / sigma.cpu().view(-1, 1, 1, 1)
    fp32 = torch.float32 in (model.get_dtype(), model.manual_cast_dtype)
    print(f"the host computes in {model.get_dtype()} cast to {model.manual_cast_dtype}")
    # Not zero in fp32 either: taking the noise out of the clean latent again costs digits at sigma 0.03.
    for index in range(3):
        same(ours[index], hosts[index], error=1e-4 if fp32 else 0.02)


def test_text_encoder_is_the_hosts(both: Both) -> None:
    tokens = both.host_clip.tokenize(TEXT)
    ids = torch.tensor([[token for token, _ in tokens["l"][0]]])
    with torch.inference_mode():
        hosts = both.host_clip.encode_from_tokens(tokens)
        ours = both.text(ids)
    assert ids.shape == (1, 77) and hosts.shape == (1, 77, 768)
    trained = both.text.embeddings.token_embedding.row_of_id[ids] >= 0
    assert trained.any() and not trained.all()
    same(ours, hosts, error=1e-5 if hosts.device.type == "cpu" else 5e-3)


def test_vae_is_the_hosts(both: Both) -> None:
    """The host's latents are ours over its factor; what its U-Net gets of them is ours again."""
    side = both.size.picture
    pictures = torch.rand(2, side, side, 3, generator=torch.Generator().manual_seed(2))
    ours = both.vae.encode(pictures.movedim(-1, 1))
    # On a GPU the host may run the VAE in bf16.
    exact = both.host_vae.vae_dtype == torch.float32
    with torch.inference_mode():
        hosts = both.host_vae.encode(pictures)
        same(ours, hosts * SD15_LATENT_SCALE, error=1e-4 if exact else 0.02)
        same(ours, both.host_model.model.process_latent_in(hosts), error=1e-4 if exact else 0.02)
        drawn = both.host_vae.decode(both.host_model.model.process_latent_out(ours))
        ours_drawn = both.vae.decode(ours).movedim(1, -1)
    assert 0 < ours_drawn.mean() < 1
    same(ours_drawn, drawn, error=1e-4 if exact else 0.02)
