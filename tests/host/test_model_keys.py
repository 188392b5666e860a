"""Keys of what is kept go by what the models compute: every patch that changes it changes them, and nothing
else does.
"""

from dataclasses import replace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from random_checkpoint import SMALL_TEXT_OPTIONS, write_random_checkpoint
from small_base.layout import TEXT_PREFIX, UNET_PREFIX, VAE_PREFIX


@pytest.fixture(scope="module")
def load(comfy):
    def load(path, **options):
        text = {**SMALL_TEXT_OPTIONS, **({"dtype": options.pop("text")} if "text" in options else {})}
        with torch.inference_mode():
            model, clip, vae, _ = comfy.sd.load_checkpoint_guess_config(
                str(path), te_model_options=text, model_options=options
            )
        return Loaded(model, clip, vae)

    from ComfyUI_CNS.cns_core.host.types import Loaded

    return load


@pytest.fixture(scope="module")
def base(pack, load, small_checkpoint):
    return load(small_checkpoint)


@pytest.fixture(scope="module")
def other(load, tmp_path_factory):
    path = tmp_path_factory.mktemp("other") / "other.safetensors"
    return load(write_random_checkpoint(path, seed=5, small=True))


@pytest.fixture(scope="module")
def concept(run, host_base):
    place = host_base / "input" / "keyed"
    place.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64), (200, 30, 30)).save(place / "0.png")
    return run("LoadConceptImages", name="keyed", class_word="dog", folder="keyed", resolution=64)[0]


@pytest.fixture(scope="module")
def lesson_of(concept):
    from ComfyUI_CNS.cns_core.host.learn import Lesson
    from ComfyUI_CNS.cns_core.host.model import read_base
    from ComfyUI_CNS.cns_core.host.models_key import models_key
    from ComfyUI_CNS.cns_core.host.prepare import prepare
    from ComfyUI_CNS.cns_core.methods import METHODS

    def keys(loaded):
        """Of the run, of class images, of the moments."""
        from ComfyUI_CNS.cns_core.host.identity import text_identity
        from ComfyUI_CNS.cns_core.host.known_models import computes_as

        method = METHODS["token alone"]
        plan = prepare(
            loaded.model, loaded.clip, concept, None, method, method.Selection(), lambda done, total: None
        )
        lesson = Lesson(loaded, concept, plan, method_settings=method.Training())
        base = read_base(loaded.model, loaded.clip)
        lesson.check(base)
        moments = computes_as(text_identity(loaded.clip), loaded.clip)
        return lesson.key(base), models_key(loaded, base.identity), moments

    return keys


def merged(loaded, other, ratio=0.5):
    from comfy_extras.nodes_model_merging import ModelMergeSimple

    return replace(loaded, model=ModelMergeSimple().merge(loaded.model, other.model, ratio)[0])


def merged_clip(loaded, other, ratio=0.5):
    from comfy_extras.nodes_model_merging import CLIPMergeSimple

    return replace(loaded, clip=CLIPMergeSimple().merge(loaded.clip, other.clip, ratio)[0])


def with_lora(loaded, key, strength=1.0, text=False):
    """A LoRA of rank one on a single matrix, through the host's own loader."""
    import comfy.sd

    g = torch.Generator().manual_seed(1)
    part = loaded.clip.cond_stage_model if text else loaded.model.model
    rows, columns = dict(part.named_parameters())[key].shape
    if text:
        name = "lora_te_" + key.removeprefix("clip_l.transformer.").removesuffix(".weight").replace(".", "_")
    else:
        name = key.removesuffix(".weight")
    lora = {
        f"{name}.lora_up.weight": 0.3 * torch.randn(rows, 1, generator=g),
        f"{name}.lora_down.weight": 0.3 * torch.randn(1, columns, generator=g),
    }
    model, clip = comfy.sd.load_lora_for_models(loaded.model, loaded.clip, lora, strength, strength)
    assert model.patches or clip.patcher.patches
    return replace(loaded, model=model, clip=clip)


def sampled_by(loaded, sampling, zsnr=False):
    from comfy_extras.nodes_model_advanced import ModelSamplingDiscrete

    return replace(loaded, model=ModelSamplingDiscrete().patch(loaded.model, sampling, zsnr)[0])


def skipping(loaded, layers):
    clip = loaded.clip.clone()
    clip.clip_layer(-layers)
    return replace(loaded, clip=clip)


KV = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
ELSEWHERE = "diffusion_model.input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"
TEXT = "clip_l.transformer.text_model.encoder.layers.0.mlp.fc1.weight"

COMPUTE_OTHERWISE = {
    "a merge": lambda base, other: merged(base, other),
    "a merge at another ratio": lambda base, other: merged(base, other, 0.2),
    "a merge that is nearly the first parent": lambda base, other: merged(base, other, 0.999),
    "a LoRA on keys": lambda base, _: with_lora(base, KV),
    "a weaker LoRA": lambda base, _: with_lora(base, KV, 0.5),
    "a LoRA elsewhere": lambda base, _: with_lora(base, ELSEWHERE),
    "a LoRA on the text encoder": lambda base, _: with_lora(base, TEXT, text=True),
    "a merged text encoder": lambda base, other: merged_clip(base, other),
    "another VAE": lambda base, other: replace(base, vae=other.vae),
    "another model": lambda base, other: other,
    "v prediction": lambda base, _: sampled_by(base, "v_prediction"),
    "zero SNR": lambda base, _: sampled_by(base, "eps", zsnr=True),
    "clip skip": lambda base, _: skipping(base, 2),
}
ABOUT_TEXT = ("a LoRA on the text encoder", "a merged text encoder", "clip skip", "another model")


def test_whatever_changes_what_is_computed_changes_every_key(base, other, lesson_of):
    found = {"as it is": lesson_of(base)}
    found |= {what: lesson_of(make(base, other)) for what, make in COMPUTE_OTHERWISE.items()}
    for number in (0, 1):  # of the run, of class images
        assert len({keys[number] for keys in found.values()}) == len(found)
    moments = {found[what][2] for what in ("as it is", *ABOUT_TEXT)}
    assert len(moments) == len(ABOUT_TEXT) + 1
    assert {keys[2] for keys in found.values()} == moments


def test_nothing_else_does(comfy, base, other, load, small_checkpoint, lesson_of):
    before = lesson_of(base)
    assert lesson_of(replace(base, model=base.model.clone(), clip=base.clip.clone())) == before
    # What another graph has drawn with before lies merged in memory.
    management = comfy.model_management
    mixed = merged_clip(merged(base, other), other)
    with torch.inference_mode():
        management.load_models_gpu([mixed.model, mixed.clip.patcher], force_full_load=True)
        assert lesson_of(load(small_checkpoint)) == before
        assert lesson_of(base) == before
        management.unload_all_models()
    for dtype in (torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        assert lesson_of(load(small_checkpoint, dtype=dtype)) == before, dtype
        assert lesson_of(load(small_checkpoint, text=dtype)) == before, dtype


def test_parts_from_files_of_their_own_are_the_checkpoint_they_come_from(
    comfy, base, small_checkpoint, lesson_of, tmp_path
):
    """As *Load Diffusion Model*, *Load CLIP* and *Load VAE* read them."""
    import comfy.sd

    whole, parts = load_file(small_checkpoint), {}
    for name, prefix in (
        ("unet", UNET_PREFIX),
        ("text", TEXT_PREFIX.removesuffix("text_model.")),
        ("vae", VAE_PREFIX),
    ):
        part = {key.removeprefix(prefix): t for key, t in whole.items() if key.startswith(prefix)}
        parts[name] = tmp_path / f"{name}.safetensors"
        save_file(part, parts[name])
    # The host looks for the length of prompts in such a file, and builds the encoder from this option then.
    few_layers = {"model_config": dict(SMALL_TEXT_OPTIONS["clip_l_model_config"])}
    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(parts["unet"]))
        clip = comfy.sd.load_clip([str(parts["text"])], model_options=few_layers)
        vae = comfy.sd.VAE(sd=load_file(parts["vae"]))
    assert lesson_of(replace(base, model=model, clip=clip, vae=vae)) == lesson_of(base)


def test_a_merge_saved_as_a_checkpoint_is_that_merge(base, other, load, lesson_of, tmp_path):
    from comfy.sd import save_checkpoint

    path, mixed = tmp_path / "merge.safetensors", merged_clip(merged(base, other, 0.4), other)
    with torch.inference_mode():
        save_checkpoint(str(path), mixed.model, mixed.clip, mixed.vae)
    assert lesson_of(load(path)) == lesson_of(mixed)


@pytest.mark.parametrize("what", ["output_block_patch", "attn1_patch", "attn2_patch", "attn2_replace"])
def test_patches_of_the_forward_are_refused_by_name_before_any_work(base, lesson_of, what):
    def their_patch(*args):
        raise AssertionError("never called")

    model = base.model.clone()
    arguments = ("output", 3, 0) if what == "attn2_replace" else ()
    getattr(model, f"set_model_{what}")(their_patch, *arguments)
    with pytest.raises(
        ValueError, match=r"their_patch of .*test_model_keys.*between Apply Personalized UNet"
    ):
        lesson_of(replace(base, model=model))


def test_the_hosts_own_nodes_of_that_kind_are_refused(base, lesson_of):
    from comfy_extras.nodes_freelunch import FreeU

    patched = FreeU().patch(base.model, 1.1, 1.2, 0.9, 0.2)[0]
    with pytest.raises(ValueError, match=r"output_block_patch: FreeU\..* of comfy_extras\.nodes_freelunch"):
        lesson_of(replace(base, model=patched))


def test_wrappers_and_objects_are_refused_too(base, lesson_of):
    wrapped, replaced, function = (base.model.clone() for _ in range(3))
    wrapped.add_wrapper("apply_model", print)
    replaced.add_object_patch("diffusion_model.out", torch.nn.Identity())
    function.set_model_unet_function_wrapper(print)
    for model in (wrapped, replaced, function):
        with pytest.raises(ValueError, match="patches that training cannot go through"):
            lesson_of(replace(base, model=model))
    compiled = base.model.clone()
    compiled.add_wrapper_with_key("apply_model", "torch.compile", print)
    assert lesson_of(replace(base, model=compiled)) == lesson_of(base)


# --- Which model a memory is of
# ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learn(run, concept):
    def learn(loaded, **inputs):
        given = {"model": loaded.model, "clip": loaded.clip, "concept": concept}
        neurons = run("SelectConceptNeurons", **given, what_may_move="neurons", calibration_prompts=16)[0]
        settings = {"steps": 2, "neuron_lr": 1e-3, "batch_size": 1, "prior": "none", **inputs}
        return run("ContinualTrain", **given, vae=loaded.vae, neurons=neurons, **settings)

    return learn


@pytest.fixture(scope="module")
def applied(run):
    def apply(loaded, memory, **inputs):
        return run("ApplyPersonalizedUNet", model=loaded.model, clip=loaded.clip, memory=memory, **inputs)

    return apply


def test_what_is_learned_on_a_merge_is_of_that_merge(base, other, learn, applied):
    mixed = merged(base, other, 0.7)
    memory, _, text = learn(mixed)
    assert "LoRAs" in text and "draw with it on the same" in text
    again, _, text = learn(merged(base, other, 0.3))
    assert "taken from disk" not in text and not again.base.same_as(memory.base)
    applied(mixed, memory)
    for wrong in (base, other):
        with pytest.raises(ValueError, match=r"was made on SD1 model .*% apart"):
            applied(wrong, memory)


def test_neurons_are_selected_on_the_weights_that_are_trained(base, other, lesson_of):
    from ComfyUI_CNS.cns_core.host.model import read_base

    own, others, both = (
        read_base(loaded.model, loaded.clip).weights[
            KV.removeprefix("diffusion_model.").removesuffix(".weight")
        ]
        for loaded in (base, other, merged(base, other, 0.25))
    )
    torch.testing.assert_close(both.float(), 0.25 * own.float() + 0.75 * others.float(), atol=1e-6, rtol=1e-3)


def test_a_lora_on_model_is_fine_when_drawing(base, learn, applied):
    memory = learn(base)[0]
    applied(with_lora(base, KV), memory)
    applied(with_lora(base, TEXT, text=True), memory)


def test_what_is_learned_on_a_lora_is_drawn_on_it(base, learn, applied):
    with_it = with_lora(base, KV)
    memory = learn(with_it)[0]
    applied(with_it, memory)
    with pytest.raises(ValueError, match="with the merges and LoRAs it was made with"):
        applied(base, memory)


def test_a_close_model_is_taken_when_the_user_says_so(run, base, other, learn, applied, caplog):
    memory = learn(base)[0]
    near = merged(base, other, 0.95)
    with pytest.raises(ValueError, match="set other model to 'a close one too'"):
        applied(near, memory)
    caplog.clear()
    applied(near, memory, other_model="a close one too")
    assert "% apart" in caplog.text
    with pytest.raises(ValueError, match="was made on"):
        applied(other, memory, other_model="a close one too")


def test_a_memory_is_drawn_in_any_precision(base, load, small_checkpoint, learn, applied):
    memory = learn(base)[0]
    applied(load(small_checkpoint, dtype=torch.bfloat16), memory)
    applied(load(small_checkpoint, dtype=torch.float8_e4m3fn, text=torch.float8_e4m3fn), memory)
