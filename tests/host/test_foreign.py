"""An embedding and Custom Diffusion's weights become a concept, in the real host."""

import sys

import pytest
import torch
from safetensors.torch import save_file

WORDS = {"name": "my cat", "class_word": "cat", "kind": "subject", "token": "", "weights": "(none)"}


@pytest.fixture(scope="module")
def places(host_base, tmp_path_factory):
    """Folders of the test's own for LoRAs and embeddings."""
    import folder_paths

    base = tmp_path_factory.mktemp("foreign")
    kept = {name: folder_paths.folder_names_and_paths[name] for name in ("loras", "embeddings")}
    for name, (_, endings) in kept.items():
        (base / name).mkdir()
        folder_paths.folder_names_and_paths[name] = ([str(base / name)], endings)
    g = torch.Generator().manual_seed(0)
    save_file({"emb_params": torch.randn(1, 768, generator=g)}, base / "embeddings" / "cat.safetensors")
    save_file({"emb_params": torch.randn(4, 768, generator=g)}, base / "embeddings" / "four.safetensors")
    save_file({"emb_params": torch.randn(75, 768, generator=g)}, base / "embeddings" / "full.safetensors")
    save_file({"clip_g": torch.randn(1, 1280, generator=g)}, base / "embeddings" / "xl.safetensors")
    (base / "embeddings" / "old.pt").write_bytes(b"a pickle")
    yield base
    folder_paths.folder_names_and_paths.update(kept)


@pytest.fixture(scope="module")
def weights(pack, places, models):
    """A file of Custom Diffusion for the test's model, and what it differs by from it."""
    base = sys.modules[f"{pack.__name__}.cns_core.host.model"].read_base(**models)
    names = sys.modules[f"{pack.__name__}.cns_core.export.block_names"].diffusers_names(base.layout.names)
    g = torch.Generator().manual_seed(1)
    changes = {name: 0.01 * torch.randn(shape, generator=g) for name, shape, _ in base.layout.slices()}
    tensors = {
        f"{names[n].replace('attn2.to_', 'attn2.processor.to_')}_custom_diffusion.weight": (
            base.weights[n].float().cpu() + change
        )
        for n, change in changes.items()
    }
    save_file(tensors, places / "loras" / "cat_weights.safetensors")
    save_file(
        {**tensors, "x.to_q_custom_diffusion.weight": torch.zeros(2, 2)}, places / "loras" / "q.safetensors"
    )
    return changes


@pytest.mark.parametrize("embedding", ["cat", "four"])
def test_an_embedding_draws_as_before(run, models, places, both, untouched, embedding):
    file = f"{embedding}.safetensors"
    memory, text = run("ImportConcept", **models, embedding=file, memory=both, **WORDS)
    assert memory.names() == [*both.names(), "my cat"] and "`<my-cat>` (my cat) draws what" in text
    clip = run("ApplyPersonalizedUNet", **models, memory=memory)[1]
    stock = models["clip"].clone()
    stock.tokenizer.clip_l.embedding_directory = [str(places / "embeddings")]
    with torch.inference_mode():
        ours = clip.encode_from_tokens(clip.tokenize("a photo of <my-cat>"))
        theirs = stock.encode_from_tokens(stock.tokenize(f"a photo of embedding:{embedding}"))
    torch.testing.assert_close(ours, theirs)
    for name, change in memory.changes().items():
        assert torch.equal(change, both.changes()[name])


def test_weights_are_laid_on_what_was_learned_before(
    run, models, places, weights, both, few_prompts, untouched
):
    given = {**WORDS, "weights": "cat_weights.safetensors"}
    memory, text = run("ImportConcept", **models, embedding="cat.safetensors", memory=both, **given)
    before = both.changes()
    for name, change in memory.changes().items():
        torch.testing.assert_close(change.float(), before[name].float() + weights[name], atol=1e-4, rtol=1e-2)
    assert "`<my-cat>` moves keys and values of `<my-dog>` by" in text and "general prompts" in text
    rest = run("ForgetConcept", memory=memory, concept="my cat")[0]
    assert all(torch.equal(change, before[name]) for name, change in rest.changes().items())


@pytest.mark.parametrize("embedding", ["cat.safetensors", "four.safetensors"])
def test_a_file_keeps_it_and_later_concepts_are_learned_on_top(
    run, models, places, host_base, train, dog, embedding
):
    memory = run("ImportConcept", **models, embedding=embedding, **WORDS)[0]
    run("SaveConceptMemory", memory=memory, filename="with_cat", overwrite=True)
    again = run("LoadConceptMemory", file="with_cat.safetensors")[0]
    assert again.digest() == memory.digest()
    plan = run(
        "SelectConceptNeurons",
        **models,
        concept=dog,
        memory=again,
        what_may_move="directions",
        general_prompts=16,
    )[0]
    assert train(dog, plan, memory=again, least_gain=0.0)[0].names() == ["my cat", "my dog"]


@pytest.mark.parametrize(
    ("embedding", "more", "told"),
    [
        ("full.safetensors", {}, "too little room.* at most 75 fit.*embedding:NAME"),
        ("xl.safetensors", {}, "1280.*768 wide"),
        ("old.pt", {}, "no safetensors file 'old.pt'"),
        ("../cat.safetensors", {}, r"\.\./cat"),
        ("cat.safetensors", {"weights": "q.safetensors"}, "to_q_custom_diffusion.*freeze_model"),
        ("cat.safetensors", {"name": "my dog", "token": ""}, "my dog.*learned already"),
        ("cat.safetensors", {"class_word": "embedding:x"}, "class word"),
    ],
)
def test_what_does_not_fit_is_refused(run, models, places, weights, both, embedding, more, told):
    with pytest.raises(ValueError, match=told):
        run("ImportConcept", **models, embedding=embedding, memory=both, **{**WORDS, **more})
