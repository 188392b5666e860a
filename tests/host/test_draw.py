"""ApplyPersonalizedUNet: weights and tokens, exactly those that were learned."""

import dataclasses

import pytest
import torch
from bits import bits


def test_a_memory_of_another_base_is_refused_and_both_are_named(run, models, dog_memory):
    import dataclasses

    other = dataclasses.replace(dog_memory, base=dataclasses.replace(dog_memory.base, fingerprint="cd" * 32))
    with pytest.raises(ValueError, match=r"SD1 model cdcdcdcdcdcd, but the loaded model is SD1 model"):
        run("ApplyPersonalizedUNet", **models, memory=other)


def loaded_weights(comfy, model, memory):
    comfy.model_management.load_models_gpu([model])
    modules = model.model.diffusion_model
    return {n: modules.get_submodule(n).weight.detach().clone() for n in memory.layout.names}


def test_weights_are_exactly_base_plus_values_and_go_back(comfy, run, models, both, untouched):
    base = loaded_weights(comfy, models["model"], both)
    for strength, stage in ((1.0, both), (0.5, both), (1.0, both.stage(1))):
        model, _ = run("ApplyPersonalizedUNet", **models, memory=stage, strength=strength)
        seen = loaded_weights(comfy, model, both)
        for name, change in stage.changes().items():
            assert torch.equal(seen[name], base[name] + strength * change.to(base[name].dtype)), name
    again = loaded_weights(comfy, models["model"], both)
    assert all(torch.equal(again[n], base[n]) for n in base)


def test_a_matrix_that_is_mostly_moved_is_patched_as_a_whole(comfy, run, models, both, untouched):
    from ComfyUI_CNS.cns_core.methods.cns.change import CnsChange
    from ComfyUI_CNS.cns_core.methods.cns.masks import NeuronMask

    first, *_ = both.layout.names
    masks = {n: torch.full(s, n == first) for n, s, _ in both.layout.slices()}
    mask = NeuronMask.from_dense(both.layout, masks)
    values = torch.randn(mask.count(), generator=torch.Generator().manual_seed(0)).half()
    one = both.concepts[0]
    all_of_it = dataclasses.replace(one, name="all", token="<all>", change=CnsChange(mask, values))
    memory = both.with_learned(all_of_it)
    base = loaded_weights(comfy, models["model"], both)
    model, _ = run("ApplyPersonalizedUNet", **models, memory=memory, strength=0.5)
    sizes = {key: len(patches[0][1].weights) for key, patches in model.patches.items()}
    assert sizes.pop(f"diffusion_model.{first}.weight") == 1 and set(sizes.values()) == {2}
    seen = loaded_weights(comfy, model, both)
    for name, change in memory.changes().items():
        assert torch.equal(seen[name], base[name] + 0.5 * change.to(base[name].dtype)), name
    loaded_weights(comfy, models["model"], both)


def test_as_of_an_earlier_concept(run, models, both, untouched):
    from ComfyUI_CNS.cns_core.host.text import known_tokens

    for as_of in ("1", "my dog", "<my-dog>"):
        _, clip = run("ApplyPersonalizedUNet", **models, memory=both, as_of=as_of)
        assert known_tokens(clip) == ["<my-dog>"]
    with pytest.raises(ValueError, match="No concept 'nobody'"):
        run("ApplyPersonalizedUNet", **models, memory=both, as_of="nobody")


def test_what_was_trained_is_what_is_drawn(
    comfy, run, train, models, random_model, dog, dog_neurons, untouched, float32
):
    """A frozen further run on the memory predicts what drawing with it does: training and patches agree."""
    from ComfyUI_CNS.cns_core.host.backend import HostBackend, training_mode

    memory = train(dog, dog_neurons)[0]
    learned = memory.concepts[0]
    z, t = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([400])
    with training_mode():
        backend = HostBackend(models["model"], models["clip"], "<my-dog>", learned.token_vectors, {}, float32)
        again = dog_neurons.method.start(
            dog_neurons.prepared, memory, dog_neurons.method.Training(), backend.device
        )
        with backend.weights_patched(again.weight_functions()), torch.no_grad():
            features = backend.encode(["a photo of <my-dog>"], learned.token_vectors)
            trained = backend.predict(z, t, features)
    model, clip = run("ApplyPersonalizedUNet", **models, memory=memory)
    with torch.inference_mode():
        cond = clip.encode_from_tokens(clip.tokenize("a photo of <my-dog>"))
        comfy.model_management.load_models_gpu([model])
        sigma = model.get_model_object("model_sampling").sigmas[t]
        x = z * (sigma**2 + 1).sqrt()
        drawn = (x - model.model.apply_model(x, sigma, c_crossattn=cond)) / sigma
    torch.testing.assert_close(trained, drawn, atol=2e-4, rtol=1e-3)
    loaded_weights(
        comfy, models["model"], memory
    )  # the host keeps the last drawn model merged until another is loaded


def test_plain_prompts_encode_exactly_as_before(run, models, both, untouched):
    _, clip = run("ApplyPersonalizedUNet", **models, memory=both)
    for prompt in ("", "a photo of a dog", "(blue:1.3) sky, my dog", "a < b > c <other> token", "word " * 90):
        with torch.inference_mode():
            before = models["clip"].encode_from_tokens(models["clip"].tokenize(prompt), return_pooled=True)
            after = clip.encode_from_tokens(clip.tokenize(prompt), return_pooled=True)
        assert all(torch.equal(bits(a), bits(b)) for a, b in zip(before, after, strict=True)), prompt


def entries(clip, prompt):
    return clip.tokenize(prompt)["l"][0]


def test_the_token_is_spliced_in_wherever_it_stands(run, models, both, untouched):
    _, clip = run("ApplyPersonalizedUNet", **models, memory=both)
    dog, mug = (c.token_vectors["clip_l"][0] for c in both.concepts)

    def vectors(prompt):
        return [(i, w) for i, (e, w) in enumerate(entries(clip, prompt)) if torch.is_tensor(e)], [
            e for e, _ in entries(clip, prompt) if torch.is_tensor(e)
        ]

    for prompt in ("<my-dog>", "a photo of <my-dog>", "A photo of <My-Dog>!", "<my-dog>s", "x,<my-dog>,y"):
        places, found = vectors(prompt)
        assert len(found) == 1 and torch.equal(found[0], dog), prompt
    places, found = vectors("(<my-dog>:1.3) on a <my-mug>")
    assert torch.equal(found[0], dog) and torch.equal(found[1], mug) and places[0][1] == pytest.approx(1.3)
    assert not vectors("my-dog")[1] and len(entries(clip, "<my-dog>")) == 77


def test_the_stock_text_encode_node_reads_the_token(run, models, both, comfy):
    import nodes as stock

    _, clip = run("ApplyPersonalizedUNet", **models, memory=both)
    with torch.inference_mode():
        with_token = stock.CLIPTextEncode().encode(clip, "a photo of <my-dog>")[0][0][0]
        without = stock.CLIPTextEncode().encode(models["clip"], "a photo of <my-dog>")[0][0][0]
    assert with_token.shape == (1, 77, 768) and not torch.equal(with_token, without)


def test_two_memories_in_a_row_compose(run, models, both, dog_memory, comfy, untouched):
    only_mug = both.without("my dog")
    model, clip = run("ApplyPersonalizedUNet", **models, memory=dog_memory)
    model, clip = run("ApplyPersonalizedUNet", model=model, clip=clip, memory=only_mug)
    found = [e for e, _ in entries(clip, "<my-dog> and <my-mug>") if torch.is_tensor(e)]
    assert len(found) == 2
    base = loaded_weights(comfy, models["model"], both)
    seen = loaded_weights(comfy, model, both)
    name = both.layout.names[0]
    assert not torch.equal(seen[name], base[name])
    loaded_weights(comfy, models["model"], both)
    with pytest.raises(ValueError, match=r"already understands <my-mug>"):
        run("ApplyPersonalizedUNet", model=model, clip=clip, memory=only_mug)


def test_a_memory_that_names_this_base_but_holds_something_else_is_refused(
    run, select, models, dog, dog_memory
):
    """They would be drawn in silence, or fail in the sampler."""
    layout = dog_memory.layout
    fewer = type(layout)(layout.names[:-1], layout.shapes[:-1])
    other = type(layout)(layout.names, tuple((out + 8, width) for out, width in layout.shapes))
    concept = dog_memory.concepts[0]
    shorter = {encoder: vector[:, :-1] for encoder, vector in concept.token_vectors.items()}
    more = {**concept.token_vectors, "clip_g": torch.zeros(1, 1280)}
    wrong = [type(dog_memory)(dog_memory.base, layout) for layout in (fewer, other)]
    for vectors in (shorter, more, {"clip_x": torch.zeros(1, 768)}):
        changed = dataclasses.replace(concept, token_vectors=vectors)
        wrong.append(dataclasses.replace(dog_memory, concepts=(changed,)))
    for memory in wrong:
        with pytest.raises(ValueError, match=r"does not fit the loaded model: .*take another copy"):
            run("ApplyPersonalizedUNet", **models, memory=memory)
        with pytest.raises(ValueError, match="does not fit the loaded model"):
            select(dog, memory=memory)
