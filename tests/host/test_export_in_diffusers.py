"""What is exported draws the same in diffusers, loaded by the very lines that the node tells."""

import re

import pytest
import torch
from narrow_models import FAMILIES, diffusers_twin, narrow_model

pytest.importorskip("diffusers", reason="needs diffusers")
pytest.importorskip("peft", reason="needs peft, with which diffusers loads LoRAs")

LATENT = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
SIZE = {"width": 64, "height": 64, "crop_w": 0, "crop_h": 0, "target_width": 64, "target_height": 64}
SIZE_IN_DIFFUSERS = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]])


def directions(base, seed):
    from ComfyUI_CNS.cns_core.methods.directions.change import DirectionsChange

    layout, count = base.layout, 2 + seed
    g, width = torch.Generator().manual_seed(seed), layout.shapes[0][1]
    answers = torch.randn(sum(out for out, _ in layout.shapes), count, generator=g).half()
    down = torch.randn(count, width, generator=g) * width**-0.5
    return DirectionsChange(layout, answers, down, torch.ones(count))


def neurons(base, seed):
    """In more rows of one projection than of the next, in none of some: as products they have many ranks."""
    from ComfyUI_CNS.cns_core.methods.cns.change import CnsChange
    from ComfyUI_CNS.cns_core.methods.cns.masks import NeuronMask

    g, masks = torch.Generator().manual_seed(seed), {}
    for place, (name, (out, width), _) in enumerate(base.layout.slices()):
        masks[name] = torch.rand(out, width, generator=g) < 0.3
        masks[name][place % 5 * out // 4 :] = False
    mask = NeuronMask.from_dense(base.layout, masks)
    return CnsChange(mask, (torch.randn(mask.count(), generator=g) * 0.1).half())


def adapter(base, seed):
    """Beside self-attention too."""
    from ComfyUI_CNS.cns_core.methods.adapters.change import AdapterChange
    from ComfyUI_CNS.cns_core.methods.adapters.forms import LoraForm
    from ComfyUI_CNS.cns_core.weight_scopes import ATTENTION, weights_in

    g, form, layout = torch.Generator().manual_seed(seed), LoraForm(), weights_in(base.shapes, ATTENTION)
    part = {
        name: {p: torch.randn(of, generator=g).half() / 8 for p, of in form.shapes(shape, 4).items()}
        for name, shape, _ in layout.slices()
    }
    return AdapterChange(form, layout, (part,))


KINDS = {
    "directions": (directions, directions),
    "neurons": (neurons, neurons),
    "directions on neurons": (neurons, directions),
    "an adapter on directions": (directions, adapter),
}


@pytest.fixture(scope="module", params=FAMILIES)
def drawers(request, pack, comfy):
    """The host's MODEL and CLIP, and a pipeline of diffusers with the same weights."""
    narrow = narrow_model(request.param)
    return narrow, diffusers_twin(request.param, narrow)


@pytest.fixture(scope="module")
def learned(drawers):
    """A memory of two concepts by the name of a kind; each token stands for two vectors."""
    from ComfyUI_CNS.cns_core.host.model import read_base
    from ComfyUI_CNS.cns_core.memory import ConceptMemory, LearnedConcept

    with torch.inference_mode():
        base = read_base(*drawers[0])
    widths = base.token_widths

    def call(kind):
        g, memory = torch.Generator().manual_seed(5), ConceptMemory(base.identity, base.layout)
        for seed, (word, make) in enumerate(zip(("dog", "mug"), KINDS[kind], strict=True)):
            concept = LearnedConcept(
                name=f"my {word}",
                token=f"<my-{word}>",
                class_word=word,
                kind="subject",
                captions=(f"a photo of <my-{word}>",),
                method={directions: "directions", neurons: "cns", adapter: "lora"}[make],
                change=make(base, seed),
                token_vectors={e: torch.randn(2, n, generator=g) * 0.1 for e, n in widths.items()},
                settings={},
                losses={},
                learned_at="2025-01-01T00:00:00+00:00",
            )
            memory = memory.with_learned(concept)
        return memory

    return call


@pytest.fixture
def told(run):
    """The lines of Python that the node tells for a memory."""

    def call(memory):
        text = run("ExportConceptMemory", memory=memory, filename="twin", form="diffusers", overwrite=True)[0]
        lines = re.findall("^- `(.+?)`", text, re.MULTILINE)
        assert any("load_lora" in line for line in lines)
        return lines

    return call


def personalized(narrow, memory):
    from ComfyUI_CNS.cns_core.host.personalize import personalize

    drawn = personalize(*narrow, memory)
    return drawn.model, drawn.clip


def noise_in_the_host(model, features, pooled):
    import comfy.model_management

    y = model.model.encode_adm(pooled_output=pooled, **SIZE) if pooled is not None else None
    comfy.model_management.load_models_gpu([model])
    return model.model.diffusion_model(LATENT, torch.tensor([500.0]), context=features, y=y)


def noise_in_diffusers(pipe, features, pooled):
    added = {"text_embeds": pooled, "time_ids": SIZE_IN_DIFFUSERS} if pooled is not None else None
    return pipe.unet(LATENT, 500, encoder_hidden_states=features, added_cond_kwargs=added).sample


def text_in_the_host(clip, pipe, prompt):
    """Features, and the pooled ones where the model reads them."""
    features, extra = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))[0]
    return features, extra["pooled_output"] if hasattr(pipe, "text_encoder_2") else None


def text_in_diffusers(pipe, prompt):
    settings = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    found = pipe.encode_prompt(prompt, **settings)
    return found[0], found[2] if hasattr(pipe, "text_encoder_2") else None


def distance(seen, expected):
    return float((seen - expected).norm() / expected.norm())


def assert_alike(seen, expected, before):
    """before: what it was without what was learned."""
    error, moved = distance(seen, expected), distance(before, expected)
    assert error < 1e-3 and error < moved / 10, (error, moved)


@pytest.mark.parametrize("kind", KINDS)
def test_the_weights_draw_the_same(drawers, learned, told, kind):
    narrow, pipe = drawers
    memory = learned(kind)
    with torch.inference_mode():
        text = text_in_the_host(narrow.clip, pipe, "a dog on a beach")
        before = noise_in_the_host(narrow.model, *text)
        assert distance(noise_in_diffusers(pipe, *text), before) < 1e-3
        expected = noise_in_the_host(personalized(narrow, memory)[0], *text)
    names = {"pipe": pipe}
    for line in told(memory):
        if line.startswith(("folder", "pipe.load_lora")):
            exec(line, names)
    with torch.inference_mode():
        seen = noise_in_diffusers(pipe, *text)
    pipe.unload_lora_weights()
    assert_alike(seen, expected, before)


def test_the_token_says_the_same(drawers, learned, told):
    narrow, pipe = drawers
    memory = learned("directions").stage(1)
    names = {"pipe": pipe}
    for line in told(memory):
        if "load_lora" not in line:
            exec(line, names)
    with torch.inference_mode():
        before = text_in_the_host(narrow.clip, pipe, "a photo of a dog on a beach")
        expected = text_in_the_host(personalized(narrow, memory)[1], pipe, "a photo of a <my-dog> on a beach")
        seen = text_in_diffusers(pipe, "a photo of a <my-dog> on a beach")
    for parts in zip(seen, expected, before, strict=True):
        if parts[0] is not None:
            assert_alike(*parts)
