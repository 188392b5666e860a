"""SD 2.x and SDXL in the real host, at toy width: text encoders, pooled text and sizes (SDXL), learning,
drawing, refusals.
"""

from types import SimpleNamespace

import pytest
import torch

UNET = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 64,
    "num_res_blocks": [1, 1],
    "channel_mult": [1, 1],
    "num_heads": -1,
    "num_head_channels": 32,
    "use_spatial_transformer": True,
    "transformer_depth": [1, 1],
    "transformer_depth_output": [1, 1, 1, 1],
    "transformer_depth_middle": 1,
    "legacy": False,
    "use_linear_in_transformer": True,
    "dtype": torch.float32,
}
ENCODERS = {"SD2": {"clip_h": 1024}, "SDXL": {"clip_l": 768, "clip_g": 1280}}


def initialise(module, seed):
    """The host's layers come with uninitialised memory."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        value = torch.randn(parameter.shape, generator=generator) * 0.05
        if parameter.ndim == 1 and "norm" in name:
            value = torch.ones_like(value)
        parameter.data = value.to(parameter.dtype)


@pytest.fixture(scope="module", params=["SD2", "SDXL"])
def family(request, pack, comfy):
    import comfy.model_base
    import comfy.model_patcher
    import comfy.sd
    import comfy.sdxl_clip
    import comfy.supported_models
    import comfy.text_encoders.sd2_clip as sd2

    small = {f"{e}_model_config": {"num_hidden_layers": 3} for e in ENCODERS[request.param]}
    device = torch.device("cpu")
    with torch.inference_mode():
        if request.param == "SDXL":
            adm = {"context_dim": 2048, "num_classes": "sequential", "adm_in_channels": 2816}
            config = comfy.supported_models.SDXL({**UNET, **adm})
            kind = comfy.model_base.SDXL
            parts = (comfy.sdxl_clip.SDXLClipModel, comfy.sdxl_clip.SDXLTokenizer)
        else:
            config = comfy.supported_models.SD20({**UNET, "context_dim": 1024})
            kind, parts = comfy.model_base.BaseModel, (sd2.SD2ClipModel, sd2.SD2Tokenizer)
        config.custom_operations = None
        inner = kind(config, device=device)
        initialise(inner.diffusion_model, 0)
        model = comfy.model_patcher.ModelPatcher(inner, load_device=device, offload_device=device)
        target = SimpleNamespace(params={}, clip=parts[0], tokenizer=parts[1])
        clip = comfy.sd.CLIP(target, model_options={**small, "dtype": torch.float32})
        initialise(clip.cond_stage_model, 1)
    return request.param, model, clip


SETTINGS = {
    "cns": ({"select_by": "top percent", "top_percent": 20.0, "calibration_prompts": 4}, {"neuron_lr": 1e-3}),
    "directions": ({"general_prompts": 24}, {"direction_lr": 1e-1, "least_gain": 0.0}),
}


@pytest.mark.parametrize("method", SETTINGS)
def test_a_concept_is_learned_and_drawn(family, comfy, method):
    from ComfyUI_CNS.cns_core.concept import Concept, TrainingImage
    from ComfyUI_CNS.cns_core.host.learn import Lesson, learn
    from ComfyUI_CNS.cns_core.host.personalize import personalize
    from ComfyUI_CNS.cns_core.host.prepare import prepare
    from ComfyUI_CNS.cns_core.host.types import Loaded
    from ComfyUI_CNS.cns_core.methods import METHODS
    from ComfyUI_CNS.cns_core.settings import TrainSettings

    name, model, clip = family

    class Encoder:
        """Stands in for a VAE: any latents of the right shape do here."""

        patcher = model  # whose weights tell one VAE from another

        def encode(self, pixels):
            g = torch.Generator().manual_seed(int(pixels.shape[1]))
            return torch.randn(len(pixels), 4, pixels.shape[1] // 8, pixels.shape[2] // 8, generator=g)

    image = TrainingImage(torch.rand(64, 128, 3), ("a photo of <my-dog>",), None, "x")
    concept = Concept("my dog", "<my-dog>", "dog", "subject", (image,))
    chosen = METHODS[method]
    selection, training = SETTINGS[method]
    with torch.inference_mode():
        plan = prepare(
            model, clip, concept, None, chosen, chosen.Selection(**selection), lambda done, total: None
        )
        assert plan.base.family == name
        train = TrainSettings(steps=2, vectors=2)
        lesson = Lesson(
            Loaded(model, clip, Encoder()),
            concept,
            plan,
            settings=train,
            method_settings=chosen.Training(**training),
        )
        memory = learn(lesson).memory
        learned = memory.concepts[0]
        assert {e: v.shape for e, v in learned.token_vectors.items()} == {
            e: (2, width) for e, width in ENCODERS[name].items()
        }
        laid = memory.changes()
        assert all(
            laid[name].shape == shape and laid[name].any() for name, shape, _ in memory.layout.slices()
        )
        rows = clip.cond_stage_model
        for encoder, vectors in learned.token_vectors.items():
            table = getattr(rows, encoder).transformer.get_input_embeddings().weight.float()
            for vector in vectors:
                distance = (table - vector).abs().amax(dim=1).min()
                assert 0 < distance < 0.05, "every encoder's vectors moved, from the class word's row"
        drawn = personalize(model, clip, memory)
        drawn_model, drawn_clip = drawn.model, drawn.clip
        before, after = (c.encode_from_tokens(c.tokenize("a <my-dog>")) for c in (clip, drawn_clip))
        assert before.shape == after.shape and not torch.equal(before, after)
        comfy.model_management.load_models_gpu([drawn_model])
        comfy.model_management.load_models_gpu([model])


def test_the_clip_of_another_family_is_refused(family, random_model):
    from ComfyUI_CNS.cns_core.host.model import read_base

    _, model, _ = family
    with pytest.raises(ValueError, match=r"text features 768 wide, but this \w+ U-Net reads (1024|2048)"):
        read_base(model, random_model.clip)


def test_prompts_encoded_together_are_prompts_encoded_one_by_one(family, float32):
    from ComfyUI_CNS.cns_core.host.backend import HostBackend, training_mode
    from ComfyUI_CNS.cns_core.text_features import TextFeatures

    name, model, clip = family
    vectors = {e: torch.linspace(-1, 1, width)[None] for e, width in ENCODERS[name].items()}
    prompts = ["a dog", "a photo of <x> in (deep:1.3) snow", "<x>"]
    with training_mode(), torch.no_grad():
        backend = HostBackend(model, clip, "<x>", vectors, {}, float32)
        with backend.weights_patched({}):
            together = backend.encode(prompts, vectors)
            alone = TextFeatures.concatenated([backend.encode([prompt], vectors) for prompt in prompts])
    torch.testing.assert_close(together.cross, alone.cross, atol=1e-4, rtol=1e-4)
    assert torch.equal(together.is_word, alone.is_word) and together.is_word.sum(1).tolist() == [2, 7, 1]
    if name == "SDXL":
        torch.testing.assert_close(together.pooled, alone.pooled)
        assert not torch.equal(together.pooled[0], together.pooled[1])
    else:
        assert together.pooled is None
