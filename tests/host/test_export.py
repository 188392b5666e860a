"""What is exported draws the same with the host's own nodes, without this pack."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load

PROMPT = "a photo of {} and {} on a beach"


@pytest.fixture(scope="module")
def places(host_base, tmp_path_factory):
    """Folders of the test's own for LoRAs and embeddings."""
    import folder_paths

    base = tmp_path_factory.mktemp("exported")
    kept = {name: folder_paths.folder_names_and_paths[name] for name in ("loras", "embeddings")}
    for name, (_, endings) in kept.items():
        (base / name).mkdir()
        folder_paths.folder_names_and_paths[name] = ([str(base / name)], endings)
    yield base
    folder_paths.folder_names_and_paths.update(kept)


@pytest.fixture(scope="module")
def memories(run, models, train, dog, mug, both):
    """One of each kind: by directions, by neurons, and one on top of the other."""

    def directions(concept, memory=None):
        earlier = {} if memory is None else {"memory": memory}
        plan = run(
            "SelectConceptNeurons",
            **models,
            concept=concept,
            **earlier,
            what_may_move="directions",
            general_prompts=16,
        )[0]
        return train(concept, plan, **earlier, least_gain=0.0)[0]

    def chosen(concept, memory, method, **settings):
        earlier = {} if memory is None else {"memory": memory}
        plan = run("ChooseMethod", **models, concept=concept, **earlier, method=method, **settings)[0]
        return train(concept, plan, **earlier, prior="none")[0]

    by_directions = directions(mug, directions(dog))
    below = run("ForgetConcept", memory=both, concept="my mug")[0]
    return {
        "directions": by_directions,
        "neurons": both,
        "both kinds": directions(mug, below),
        "the whole U-Net": chosen(mug, chosen(dog, None, "dreambooth"), "lora"),
    }


def predicted(model, cond):
    latent = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    import comfy.model_management as management

    management.load_models_gpu([model])
    device = model.load_device
    with torch.no_grad():
        return model.model.apply_model(
            latent.to(device), torch.tensor([5.0], device=device), c_crossattn=cond[0][0].to(device)
        ).cpu()


@pytest.mark.parametrize("kind", ["directions", "neurons", "both kinds", "the whole U-Net"])
def test_stock_nodes_draw_the_same(run, models, random_model, memories, kind, places, untouched):
    import comfy.sd
    import comfy.utils

    memory = memories[kind]
    text = run("ExportConceptMemory", memory=memory, filename=f"sub/{kind}", overwrite=True)[0]
    assert "`embedding:my-dog`" in text and "Load LoRA" in text
    lora = comfy.utils.load_torch_file(str(places / "loras" / "sub" / f"{kind}.safetensors"), safe_load=True)
    with torch.inference_mode():
        ours, clip = run("ApplyPersonalizedUNet", **models, memory=memory)
        stock, _ = comfy.sd.load_lora_for_models(random_model.model, None, lora, 1.0, 0.0)
        assert stock.patches.keys() == ours.patches.keys()
        own_prompt = clip.encode_from_tokens_scheduled(clip.tokenize(PROMPT.format("<my-dog>", "<my-mug>")))
        plain_clip = random_model.clip.clone()
        plain_clip.tokenizer.clip_l.embedding_directory = [str(places / "embeddings")]
        words = PROMPT.format("embedding:my-dog", "embedding:my-mug")
        stock_prompt = plain_clip.encode_from_tokens_scheduled(plain_clip.tokenize(words))
        torch.testing.assert_close(own_prompt[0][0], stock_prompt[0][0])
        expected, seen = predicted(ours, own_prompt), predicted(stock, stock_prompt)
        plain = predicted(random_model.model, own_prompt)
    error = (seen - expected).norm() / expected.norm()
    moved = (plain - expected).norm() / expected.norm()
    assert error < 1e-3 and error < moved / 10, (float(error), float(moved))


def test_other_tools_find_what_they_read(run, memories, places):
    run("ExportConceptMemory", memory=memories["directions"], filename="card", overwrite=True)
    with safe_open(places / "loras" / "card.safetensors", "pt") as file:
        card = file.metadata()
    assert card["modelspec.trigger_phrase"] == "embedding:my-dog, embedding:my-mug"
    assert card["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert card["modelspec.thumbnail"].startswith("data:image/jpeg;base64,")
    assert card["ss_base_model_version"] == "sd_v1" and int(card["ss_network_dim"]) > 0
    assert json.loads(card["ss_tag_frequency"])["my dog"] == {"embedding:my-dog": 1, "dog": 1}
    assert json.loads(card["cns_learned_by"])["<my-dog>"]["method"] == "directions"
    with safe_open(places / "embeddings" / "my-dog.safetensors", "pt") as file:
        assert file.metadata()["modelspec.architecture"] == "stable-diffusion-v1/textual-inversion"
        assert file.get_tensor("emb_params").shape == (1, 768)


def test_only_the_chosen_concepts(run, memories, places):
    memory = memories["directions"]
    run("ExportConceptMemory", memory=memory, filename="mug", concepts="<my-mug>", overwrite=True)
    tensors = load((places / "loras" / "mug.safetensors").read_bytes())
    key = next(k for k in tensors if k.endswith("lora_down.weight"))
    assert torch.equal(tensors[key], memory.concept("my mug").change.directions)
    with pytest.raises(ValueError, match="No concept 'my cat'"):
        run("ExportConceptMemory", memory=memory, filename="x", concepts="my cat")
    with pytest.raises(ValueError, match="nothing to export"):
        run("ExportConceptMemory", memory=memory.stage(0), filename="x")


def test_another_persons_file_is_not_replaced_unasked_and_then_nothing_is_written(run, memories, places):
    memory = memories["directions"]
    run("ExportConceptMemory", memory=memory, filename="again", overwrite=True)
    run("ExportConceptMemory", memory=memory, filename="again")  # the same once more
    (places / "embeddings" / "my-dog.safetensors").write_bytes(b"somebody's own")
    with pytest.raises(ValueError, match=r"my-dog\.safetensors is another file already"):
        run("ExportConceptMemory", memory=memory, filename="never")
    assert not (places / "loras" / "never.safetensors").exists()
    run("ExportConceptMemory", memory=memory, filename="never", overwrite=True)
    vector = load((places / "embeddings" / "my-dog.safetensors").read_bytes())["emb_params"]
    assert torch.equal(vector, memory.concept("my dog").token_vectors["clip_l"])
    with pytest.raises(ValueError, match="usable file name"):
        run("ExportConceptMemory", memory=memory, filename="../x")


def test_names_are_those_that_diffusers_has(pack, random_model, memories):
    """Of this U-Net by the host's own table; of the published ones by their layouts."""
    import comfy.utils

    find = sys.modules[f"{pack.__name__}.cns_core.export.block_names"].diffusers_names
    published = {
        "SD 1.5": {
            "model_channels": 320,
            "channel_mult": (1, 2, 4, 4),
            "num_res_blocks": [2] * 4,
            "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0],
            "transformer_depth_output": [1] * 9 + [0] * 3,
            "transformer_depth_middle": 1,
        },
        "SDXL": {
            "model_channels": 320,
            "channel_mult": (1, 2, 4),
            "num_res_blocks": [2] * 3,
            "transformer_depth": [0, 0, 2, 2, 10, 10],
            "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
            "transformer_depth_middle": 10,
        },
    }
    for config in (random_model.model.model.model_config.unet_config, *published.values()):
        table = comfy.utils.unet_to_diffusers(config)
        wanted = {
            theirs.removesuffix(".weight"): ours.removesuffix(".weight")
            for ours, theirs in table.items()
            if ours.endswith(("attn2.to_k.weight", "attn2.to_v.weight"))
        }
        assert wanted
        assert find(wanted) == wanted


@pytest.mark.parametrize("kind", ["directions", "neurons", "both kinds"])
def test_diffusers_gets_the_same_weights(run, memories, kind, places):
    memory = memories[kind]
    text = run("ExportConceptMemory", memory=memory, filename=f"for {kind}", form="diffusers")[0]
    import folder_paths

    folder = Path(folder_paths.get_output_directory()) / f"for {kind}"
    assert 'load_textual_inversion(folder + "/my-dog.safetensors", token="<my-dog>")' in text
    tensors = load((folder / "pytorch_lora_weights.safetensors").read_bytes())
    modules = {key.rsplit(".lora_", 1)[0] for key in tensors}
    laid = [one for one in memory.laid().values() if one.dense is not None or len(one.down)]
    assert len(modules) == len(laid)
    found = sorted(
        float((tensors[f"{m}.lora_B.weight"] @ tensors[f"{m}.lora_A.weight"]).norm()) for m in modules
    )
    expected = sorted(float(one.in_full().norm()) for one in laid)
    torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-6)
