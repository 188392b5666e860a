"""What is told at the page while something goes on."""

import pytest


@pytest.fixture
def told(pack, monkeypatch):
    """The texts, as they are sent to pages."""
    from ComfyUI_CNS.cns_core.host import notices, server

    found = []

    def push(event, data):
        assert event == notices.NOTICE
        found.append((data["severity"], data["text"]))

    monkeypatch.setattr(server, "push", push)
    return found


def test_a_token_that_nothing_has_learned_is_told_once_a_prompt(run, models, dog_memory, told):
    clip = run("ApplyPersonalizedUNet", **models, memory=dog_memory)[1]
    known = clip.tokenize("a photo of (<My-Dog>:1.2), a < b, <3")
    assert not told and known
    plain = models["clip"].tokenize("a photo of <my-cat>")
    drawn = clip.tokenize("a photo of <my-cat>")
    ((severity, text),) = told
    assert severity == "warn" and "<my-cat>" in text and text.endswith("Learned: <my-dog>.")
    assert drawn == plain  # and drawn all the same


def test_training_by_itself_tells_nothing(train, dog, dog_neurons, monkeypatch, pack):
    from ComfyUI_CNS.cns_core.host import notices

    monkeypatch.setattr(notices, "tell", lambda *_, **__: pytest.fail("told"))
    train(dog, dog_neurons, seed=228)


def test_the_reading_of_many_general_prompts_is_told_the_first_time(pack, models, monkeypatch, told):
    from ComfyUI_CNS.cns_core.host import prompt_reader

    width = models["clip"].cond_stage_model.clip_l.transformer.text_model.embeddings.token_embedding
    reader = prompt_reader.PromptReader(models["clip"], {}, width.weight.shape[1], lambda *_: None)
    monkeypatch.setattr(prompt_reader, "_MANY", 3)
    few, many = ["one thing", "another"], ["a red car", "a blue car", "a green car that is told of"]
    reader.second_moments([few, many, many], "all tokens", lasting=2)
    ((severity, text),) = told
    assert severity == "info" and text.startswith("Reading 3 general prompts")
    reader.second_moments([few, many, many], "all tokens", lasting=2)
    assert len(told) == 1
