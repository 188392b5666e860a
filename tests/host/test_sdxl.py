"""What is SDXL's own: sizes beside the text, a prompt for each encoder, zero terminal SNR, the refiner."""

from types import SimpleNamespace

import pytest
import torch
from narrow_models import narrow_model

WIDTHS = {"clip_l": 768, "clip_g": 1280}
PROMPTS = ["a photo of a dog", "a photo of <x>", "<x> in snow"]
LATENTS = torch.randn(3, 4, 8, 16, generator=torch.Generator().manual_seed(1))  # 64 x 128 pixels
LEVELS = torch.tensor([10, 500, 999])


@pytest.fixture(scope="module")
def sdxl(pack, comfy):
    return narrow_model("SDXL")


@pytest.fixture(scope="module")
def framings(pack):
    from ComfyUI_CNS.cns_core.framing import Framing

    return [Framing((300, 500), (0, 21)), None, Framing((4000, 3000), (17, 0))]


@pytest.fixture
def opened(sdxl, float32, backend_module):
    """A backend, ready to predict, and what its U-Net reads as `y`, call by call."""

    def call(model=sdxl.model):
        vectors = {name: torch.linspace(-1, 1, width)[None] for name, width in WIDTHS.items()}
        backend, read = backend_module.HostBackend(model, sdxl.clip, "<x>", vectors, {}, float32), []
        unet = backend.model.model.diffusion_model
        hook = unet.register_forward_pre_hook(
            lambda _, args, kwargs: read.append(kwargs["y"]), with_kwargs=True
        )
        return backend, vectors, read, hook

    return call


@pytest.fixture
def told(opened, backend_module):
    """The vectors `(3, 2816)` that are read for PROMPTS."""

    def call(*given):
        backend, vectors, read, hook = opened()
        with backend_module.training_mode(), torch.no_grad(), backend.weights_patched({}):
            features = backend.encode(PROMPTS, vectors)
            prediction = backend.predict(LATENTS, LEVELS, features, *given)
        hook.remove()
        (y,) = read
        return SimpleNamespace(y=y, prediction=prediction, pooled=features.pooled)

    return call


@pytest.fixture(scope="module")
def stock(comfy, sdxl):
    """The vector that the host makes of what its node for SDXL's sizes gives."""
    import comfy.samplers
    from comfy_extras.nodes_clip_sdxl import CLIPTextEncodeSDXL

    def call(clip, prompt, **sizes):
        with torch.inference_mode():
            (positive,) = CLIPTextEncodeSDXL.execute(clip=clip, text_g=prompt, text_l=prompt, **sizes).args
            conds = [{**extra, "cross_attn": cross, "model_conds": {}} for cross, extra in positive]
            cpu = torch.device("cpu")
            (found,) = comfy.samplers.encode_model_conds(
                sdxl.model.model.extra_conds, conds, LATENTS[:1], cpu, "positive"
            )
            return found["model_conds"]["y"].cond

    return call


def test_each_row_is_told_what_the_hosts_own_node_tells_of_the_same_sizes(told, framings, stock, sdxl):
    from ComfyUI_CNS.cns_core.host.text import with_tokens

    vectors = {name: torch.linspace(-1, 1, width)[None] for name, width in WIDTHS.items()}
    clip, found = with_tokens(sdxl.clip, {"<x>": vectors}), told(framings)
    target = {"target_height": 64, "target_width": 128}
    sizes = [
        {"height": 300, "width": 500, "crop_h": 0, "crop_w": 21},
        {"height": 64, "width": 128, "crop_h": 0, "crop_w": 0},
        {"height": 4000, "width": 3000, "crop_h": 17, "crop_w": 0},
    ]
    for row, prompt, size in zip(found.y, PROMPTS, sizes, strict=True):
        wanted = stock(clip, prompt, **size, **target)[0]
        torch.testing.assert_close(row[:1280], wanted[:1280], atol=1e-4, rtol=1e-4)  # the pooled text
        assert torch.equal(row[1280:], wanted[1280:])
    assert torch.equal(found.y[:, :1280], found.pooled)
    assert len({tuple(row[1280:].tolist()) for row in found.y}) == 3


def test_pictures_as_they_are_drawn_are_told_as_ever_bit_for_bit(told, framings, sdxl, pack):
    from ComfyUI_CNS.cns_core.framing import Framing

    without, drawn = told(), told([None, Framing((64, 128)), None])
    host = sdxl.model.model.encode_adm(
        pooled_output=without.pooled, width=128, height=64, device=torch.device("cpu")
    )
    assert torch.equal(without.y, host) and torch.equal(drawn.y, host)
    assert torch.equal(without.prediction, drawn.prediction)
    assert not torch.equal(without.prediction[0], told(framings).prediction[0])


def test_the_gradient_of_the_pooled_text_goes_through(opened, backend_module, framings):
    backend, vectors, _, hook = opened()
    vectors = {name: vector.requires_grad_() for name, vector in vectors.items()}
    with backend_module.training_mode(), backend.weights_patched({}):
        features = backend.encode(PROMPTS, vectors)
        pooled = torch.autograd.grad(
            backend.predict(LATENTS, LEVELS, features, framings).square().mean(), features.pooled
        )[0]
    hook.remove()
    assert pooled.isfinite().all() and (pooled.abs().sum(dim=1) > 0).all()


class Encoder:
    """Stands in for a VAE: any latents of the right shape do here."""

    def __init__(self, model):
        self.patcher = model  # whose weights tell one VAE from another

    def encode(self, pixels):
        g = torch.Generator().manual_seed(int(pixels.shape[1]))
        return torch.randn(len(pixels), 4, pixels.shape[1] // 8, pixels.shape[2] // 8, generator=g)


@pytest.fixture(scope="module")
def lesson_on(pack, comfy):
    """Of grey pictures that were of these sizes, on a MODEL and CLIP."""
    from ComfyUI_CNS.cns_core.captions import CaptionRule
    from ComfyUI_CNS.cns_core.concept import Concept
    from ComfyUI_CNS.cns_core.host.learn import Lesson
    from ComfyUI_CNS.cns_core.host.prepare import prepare
    from ComfyUI_CNS.cns_core.host.types import Loaded
    from ComfyUI_CNS.cns_core.images import Bucketing, images_from_batches
    from ComfyUI_CNS.cns_core.methods import METHODS
    from ComfyUI_CNS.cns_core.settings import TrainSettings

    def call(model, clip, *sizes, **settings):
        rule = CaptionRule("own text", "<my-dog>", "dog", own_text="a photo of {}")
        batches = [torch.full((1, *size, 3), 0.5) for size in sizes]
        images, _ = images_from_batches(batches, [], rule, Bucketing(64, buckets=False))
        concept, method = Concept("my dog", "<my-dog>", "dog", "subject", images), METHODS["token alone"]
        with torch.inference_mode():
            plan = prepare(model, clip, concept, None, method, method.Selection(), lambda done, total: None)
        train = TrainSettings(steps=2, **settings)
        loaded = Loaded(model, clip, Encoder(model))
        return Lesson(loaded, concept, plan, settings=train, method_settings=method.Training())

    return call


def test_another_size_is_another_run_where_the_model_is_told_of_it(lesson_on, sdxl, random_model):
    from ComfyUI_CNS.cns_core.host.model import read_base

    def keys(model, clip):
        lessons = [lesson_on(model, clip, size) for size in ((64, 64), (64, 80))]
        pixels = [lesson.concept.images[0].pixels for lesson in lessons]
        assert torch.equal(*pixels), "only the sizes differ"
        with torch.inference_mode():
            return {lesson.key(read_base(model, clip)) for lesson in lessons}

    assert len(keys(*sdxl)) == 2
    assert len(keys(random_model.model, random_model.clip)) == 1


@pytest.fixture(scope="module")
def zero_snr(comfy, sdxl):
    """As a user makes it of a model that was trained so."""
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    (model,) = ModelSamplingDiscrete().patch(sdxl.model, "v_prediction", zsnr=True)
    return model


def test_learning_on_zero_terminal_snr_tells_the_sizes_and_stays_finite(
    lesson_on, sdxl, zero_snr, monkeypatch
):
    from ComfyUI_CNS.cns_core import training
    from ComfyUI_CNS.cns_core.host.learn import learn

    drawn = training.torch.randint

    def last(high, *args, **kwargs):
        """Every noise level is the last one."""
        found = drawn(high, *args, **kwargs)
        return torch.full_like(found, 999) if high == 1000 else found

    monkeypatch.setattr(training.torch, "randint", last)
    lesson = lesson_on(zero_snr, sdxl.clip, (64, 80), (32, 40), min_snr_gamma=5.0, token_lr=1e-3)
    with torch.inference_mode():
        learned = learn(lesson)
    (concept,) = learned.memory.concepts
    assert all(values.isfinite().all() for values in concept.losses.values())
    assert all(vector.isfinite().all() for vector in concept.token_vectors.values())
    assert any("40 x 32 to 80 x 64 pixels" in note and "1 of 2 was smaller" in note for note in learned.notes)
    assert any("below 768, and these pictures have about 64" in note for note in learned.notes)


@pytest.mark.parametrize("t", [998, 999])
def test_at_zero_terminal_snr_v_is_predicted_and_is_the_target(opened, backend_module, zero_snr, t):
    backend, vectors, read, hook = opened(zero_snr)
    z0, noise = (torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(2))
    levels, at = backend.levels, torch.tensor([t])
    assert levels.prediction_type == "v" and levels.alphas_cumprod[-1] < 1e-7
    z_t = levels.add_noise(z0, noise, at)
    with backend_module.training_mode(), backend.weights_patched({}):
        features = backend.encode(["a photo of <x>"], {n: v.requires_grad_() for n, v in vectors.items()})
        found = backend.predict(z_t, at, features)
        (gradient,) = torch.autograd.grad(found.square().mean(), features.cross)
        hook.remove()
        with torch.no_grad():
            unet = backend.model.model.diffusion_model
            raw = unet(z_t, at.float(), context=features.cross, y=read[0], transformer_options={})
    torch.testing.assert_close(found, raw, atol=2e-4, rtol=1e-3)
    assert gradient.isfinite().all() and gradient.any()
    alpha, sigma = levels.alphas_cumprod[t].sqrt(), (1 - levels.alphas_cumprod[t]).sqrt()
    torch.testing.assert_close(levels.target(z0, noise, at), alpha * noise - sigma * z0)
    assert levels.min_snr_weight(at, 5.0).isfinite().all()
    if t == 999:  # nothing but noise comes in, and the picture is all that is asked for
        torch.testing.assert_close(z_t, noise, atol=1e-3, rtol=0)
        torch.testing.assert_close(levels.target(z0, noise, at), -z0, atol=1e-3, rtol=0)


def test_the_refiner_is_named_and_the_base_asked_for(sdxl, pack, comfy):
    import comfy.supported_models
    from ComfyUI_CNS.cns_core.host.model import read_base

    config = comfy.supported_models.SDXLRefiner({"in_channels": 4})
    refiner = SimpleNamespace(model=SimpleNamespace(model_config=config, diffusion_model=object()))
    with pytest.raises(ValueError, match=r"This is SDXL's refiner.*Connect MODEL and CLIP of the SDXL base"):
        read_base(refiner, sdxl.clip)


def test_a_prompt_for_each_encoder_has_the_token_in_both(sdxl, pack):
    """As with the host's own node for SDXL, whose two prompts differ in words and in sections."""
    from comfy_extras.nodes_clip_sdxl import CLIPTextEncodeSDXL
    from ComfyUI_CNS.cns_core.host.text import with_tokens

    generator = torch.Generator().manual_seed(3)
    long = "<my-dog> " + "in deep snow " * 30 + "beside <my-mug>"
    sizes = dict.fromkeys(("width", "height", "target_width", "target_height"), 64) | {
        "crop_w": 0,
        "crop_h": 0,
    }
    learned = {
        token: {n: torch.randn(count, width, generator=generator) for n, width in WIDTHS.items()}
        for token, count in (("<my-dog>", 1), ("<my-mug>", 2))
    }
    with torch.inference_mode():
        clip = with_tokens(sdxl.clip, learned)

        def encoded(clip, text_g, text_l):
            output = CLIPTextEncodeSDXL.execute(clip=clip, text_g=text_g, text_l=text_l, **sizes)
            ((cross, extra),) = output.args[0]
            return cross, extra["pooled_output"]

        for text_g, text_l in (("a photo of <my-dog>", "<my-dog> and <my-mug>"), (long, "<my-mug>")):
            cross, pooled = encoded(clip, text_g, text_l)
            of_g, of_l = encoded(clip, text_g, text_g), encoded(clip, text_l, text_l)
            short = of_l[0].shape[1]
            assert torch.equal(cross[..., 768:], of_g[0][..., 768:]) and torch.equal(pooled, of_g[1])
            torch.testing.assert_close(cross[:, :short, :768], of_l[0][..., :768])
            for place, text in ((slice(768), text_l), (slice(768, None), text_g)):
                for token, word in (("<my-dog>", "dog"), ("<my-mug>", "mug")):
                    other = encoded(clip, text_g.replace(token, word), text_l.replace(token, word))[0]
                    same = other.shape == cross.shape and torch.equal(other[..., place], cross[..., place])
                    assert same == (token not in text), "each half hears the tokens of its own prompt"
