"""Tokens of several vectors: read as the host reads an embedding of them, learned, drawn, shared."""

import copy
import dataclasses
import shutil

import pytest
import torch
from safetensors.torch import load, save_file

COUNTS = {"one": 1, "two": 2, "three": 3, "nine": 9}  # the host lets no embedding of fewer than 8 be torn


@pytest.fixture(scope="module")
def memory(pack, models):
    """Concepts whose tokens stand for as many vectors as they are called."""
    from ComfyUI_CNS.cns_core.host.model import read_base
    from ComfyUI_CNS.cns_core.memory import ConceptMemory, LearnedConcept
    from ComfyUI_CNS.cns_core.methods.token_only import NoChange

    base, g = read_base(**models), torch.Generator().manual_seed(0)
    found = ConceptMemory(base.identity, base.layout)
    for name, count in COUNTS.items():
        concept = LearnedConcept(
            name=name,
            token=f"<{name}>",
            class_word="dog",
            kind="subject",
            captions=(f"a photo of <{name}>",),
            method="token alone",
            change=NoChange(base.layout),
            token_vectors={"clip_l": 0.02 * torch.randn(count, 768, generator=g)},
            settings={},
            losses={},
            learned_at="2026-01-01T00:00:00+00:00",
        )
        found = found.with_learned(concept)
    return found


@pytest.fixture(scope="module")
def places(memory, tmp_path_factory):
    """A folder for embeddings, which holds each token's vectors by its name."""
    import folder_paths

    folder = tmp_path_factory.mktemp("embeddings")
    kept = folder_paths.folder_names_and_paths["embeddings"]
    folder_paths.folder_names_and_paths["embeddings"] = ([str(folder)], kept[1])
    for concept in memory.concepts:
        vectors = {"emb_params": concept.token_vectors["clip_l"]}
        save_file(vectors, folder / f"{concept.name}.safetensors")
    yield folder
    folder_paths.folder_names_and_paths["embeddings"] = kept


def looking_in(clip, folders):
    """The host's own CLIP, which looks for embeddings there."""
    clip = clip.clone()
    clip.tokenizer = copy.copy(clip.tokenizer)
    clip.tokenizer.clip_l = copy.copy(clip.tokenizer.clip_l)
    clip.tokenizer.clip_l.embedding_directory = folders
    return clip


@pytest.fixture(scope="module")
def stock(models, places):
    return looking_in(models["clip"], [str(places)])


@pytest.fixture(scope="module")
def ours(run, models, memory, stock):
    return run("ApplyPersonalizedUNet", model=models["model"], clip=stock, memory=memory)[1]


def read(clip, prompt):
    """Vectors in place of all ids, weights, and what the text encoder makes of them."""
    table = clip.cond_stage_model.clip_l.transformer.get_input_embeddings().weight
    tokens = clip.tokenize(prompt)
    with torch.inference_mode():
        sections = [
            (torch.stack([e if torch.is_tensor(e) else table[e].float() for e, _ in s]), [w for _, w in s])
            for s in tokens["l"]
        ]
        return sections, clip.encode_from_tokens(tokens)


@pytest.mark.parametrize(
    ("prompt", "in_the_host"),
    [
        ("a photo of <three>", "a photo of embedding:three"),
        ("<three>", "embedding:three"),
        ("a (<three>:1.3) in ((deep) snow:0.7)", "a (embedding:three:1.3) in ((deep) snow:0.7)"),
        ("(<two>), (a <three> there:0.5)", "(embedding:two), (a embedding:three there:0.5)"),
        ("<two> and <three> and <two>", "embedding:two and embedding:three and embedding:two"),
        ("<one> beside <two>", "embedding:one beside embedding:two"),
        ("x,<Three>,y", "x, embedding:three ,y"),
        ("<three>s\n<two>\nsnow", "embedding:three s\nembedding:two\nsnow"),
        ("a photo,embedding:<three> here", "a photo, embedding:three here"),
        ("embedding:two with <three>", "embedding:two with embedding:three"),
        ("word " * 72 + "<three>", "word " * 72 + "embedding:three"),
        ("word " * 74 + "<three>", "word " * 74 + "embedding:three"),
        ("word " * 74 + "(<nine>:1.2) dog", "word " * 74 + "(embedding:nine:1.2) dog"),
        ("<two> " * 80, "embedding:two " * 80),
    ],
)
def test_it_is_read_as_the_host_reads_an_embedding(ours, stock, prompt, in_the_host, untouched):
    expected, of_stock = read(stock, in_the_host)
    seen, of_ours = read(ours, prompt)
    assert len(seen) == len(expected)
    for (vectors, weights), (wanted, wanted_weights) in zip(seen, expected, strict=True):
        assert torch.equal(vectors, wanted) and weights == wanted_weights
    assert torch.equal(of_ours, of_stock)


def test_a_token_is_not_torn_between_two_sections(ours, memory):
    sections = ours.tokenize("word " * 74 + "<three>")["l"]
    first, second = ([e for e, _ in section if torch.is_tensor(e)] for section in sections)
    assert not first and torch.equal(torch.stack(second), memory.concept("three").token_vectors["clip_l"])


def test_other_prompts_are_read_as_before(ours, stock):
    for prompt in ("a dog", "<other> three <three", "embedding:missing x", "word " * 90):
        assert torch.equal(read(ours, prompt)[1], read(stock, prompt)[1]), prompt


def test_without_a_folder_of_embeddings_too(run, models, memory, ours):
    plain = looking_in(models["clip"], None)
    clip = run("ApplyPersonalizedUNet", model=models["model"], clip=plain, memory=memory)[1]
    assert torch.equal(read(clip, "a <three> and <one>")[1], read(ours, "a <three> and <one>")[1])


def test_tokens_of_two_memories_in_a_row(run, models, memory, stock, ours):
    model, clip = models["model"], stock
    for concept in memory.concepts:
        alone = dataclasses.replace(memory, concepts=(concept,))
        model, clip = run("ApplyPersonalizedUNet", model=model, clip=clip, memory=alone)
    prompt = "<one>, <two>, <three>, embedding:two"
    assert torch.equal(read(clip, prompt)[1], read(ours, prompt)[1])


def test_every_vector_is_one_of_the_prompts_words_and_has_a_gradient(backend_module, models, float32):
    vectors = {"clip_l": 0.02 * torch.randn(3, 768, generator=torch.Generator().manual_seed(1))}
    with backend_module.training_mode():
        backend = backend_module.HostBackend(models["model"], models["clip"], "<x>", vectors, {}, float32)
        learning = {"clip_l": vectors["clip_l"].clone().requires_grad_()}
        with backend.weights_patched({}):
            features = backend.encode(["a photo of <x> (here:1.2)", "<x>"], learning)
            features.cross.square().sum().backward()
    assert features.is_word.sum(1).tolist() == [7, 3]
    assert bool((learning["clip_l"].grad.abs().amax(dim=1) > 0).all())


@pytest.fixture(scope="module")
def learn(run, models, random_model, dog):
    """Textual Inversion of two vectors, on top of a memory."""

    def call(concept=dog, memory=None, **inputs):
        earlier = {} if memory is None else {"memory": memory}
        plan = run("ChooseMethod", **models, concept=concept, method="token alone", **earlier)[0]
        given = {**models, "vae": random_model.vae, "concept": concept, "neurons": plan, **earlier}
        return run("ContinualTrain", **given, steps=2, prior="none", **{"vectors": 2, **inputs})

    return call


def test_it_is_learned_kept_drawn_shared_and_learned_further(
    run, models, random_model, learn, dog, ours, places, untouched
):
    memory, _, text = learn()
    learned = memory.concepts[0]
    vectors = learned.token_vectors["clip_l"]
    assert vectors.shape == (2, 768) and "2 vectors" in text and learned.settings["train"]["vectors"] == 2
    table = models["clip"].cond_stage_model.clip_l.transformer.get_input_embeddings().weight.float()
    row = table[models["clip"].tokenize("dog")["l"][0][1][0]]
    moved = vectors - row
    assert bool((moved.abs().amax(dim=1) > 1e-4).all()) and not torch.equal(moved[0], moved[1])
    assert "taken from disk" in learn()[2]

    run("SaveConceptMemory", memory=memory, filename="two_vectors", overwrite=True)
    again = run("LoadConceptMemory", file="two_vectors.safetensors")[0]
    assert again.digest() == memory.digest()
    clip = run("ApplyPersonalizedUNet", **models, memory=again)[1]
    found = [e for e, _ in clip.tokenize("a (<my-dog>:1.2)")["l"][0] if torch.is_tensor(e)]
    assert torch.equal(torch.stack(found), vectors)

    run("ExportConceptMemory", memory=again, filename="two", overwrite=True)
    assert torch.equal(load((places / "my-dog.safetensors").read_bytes())["emb_params"], vectors)
    shutil.copy(places / "my-dog.safetensors", places / "theirs.safetensors")
    words = {"name": "their dog", "class_word": "dog", "kind": "subject", "weights": "(none)"}
    imported = run("ImportConcept", **models, embedding="theirs.safetensors", memory=again, **words)[0]
    assert torch.equal(imported.concept("their dog").token_vectors["clip_l"], vectors)

    further = {**models, "vae": random_model.vae, "memory": imported, "concept": dog, "steps": 2}
    refined = run("RefineConcept", **further)[0]
    now = refined.concept("my dog").token_vectors["clip_l"]
    assert now.shape == (2, 768) and bool((now != vectors).any(dim=1).all())
    assert refined.concept("their dog").digest() == imported.concept("their dog").digest()


def test_one_vector_is_learned_and_kept_as_before(learn):
    """The setting is not among those kept, so that runs of before are found again."""
    learned = learn(vectors=1)[0].concepts[0]
    assert learned.vectors == 1 and "vectors" not in learned.settings["train"]


def test_captions_have_room_for_all_of_them(run, models, photos, learn):
    text = "word " * 73 + "<my-dog>"
    settings = {"name": "my dog", "class_word": "dog", "folder": "dog", "resolution": 64}
    concept = run("LoadConceptImages", **settings, caption_source="own text", caption=text)[0]
    assert learn(concept)[0].concepts[0].vectors == 2
    with pytest.raises(ValueError, match=r"has 76 tokens; at most 75 fit"):
        learn(concept, vectors=3)


def test_captions_that_mention_earlier_tokens_have_room_for_these_too(run, models, photos, learn, memory):
    text = "word " * 66 + "<nine> and <my-dog>"
    settings = {"name": "my dog", "class_word": "dog", "folder": "dog", "resolution": 64}
    concept = run("LoadConceptImages", **settings, caption_source="own text", caption=text)[0]
    with pytest.raises(ValueError, match=r"has 77 tokens; at most 75 fit"):
        learn(concept, memory)
