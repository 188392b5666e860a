"""SelectConceptNeurons: what may move, and what is refused before any long work."""

import re

import pytest
import torch


def test_selection_meets_its_budget_and_shows_it(select, dog, untouched):
    neurons, image, text = select(dog, budget_percent=5.0)
    assert 100 * neurons.prepared.mask.share() == pytest.approx(5.0, abs=0.4)
    assert image.ndim == 4 and "of the U-Net" in text


def test_overlap_with_earlier_concepts_is_told(select, mug, dog_memory):
    _, _, text = select(mug, memory=dog_memory)
    assert "shared with `<my-dog>`" in text and "IoU" in text


def test_settings_that_leave_no_neurons(run, models, dog):
    with pytest.raises(ValueError, match="leave no neurons"):
        run(
            "SelectConceptNeurons",
            **models,
            concept=dog,
            select_by="top percent",
            top_percent=100.0,
            what_may_move="neurons",
        )


def test_a_class_word_is_what_the_tokenizer_makes_of_it(run, select, models, photos, tmp_path, monkeypatch):
    from ComfyUI_CNS.cns_core.host.text import inner_tokenizers
    from safetensors.torch import save_file

    for tokenizer in inner_tokenizers(models["clip"]).values():  # as checkpoint loaders give it
        monkeypatch.setattr(tokenizer, "embedding_directory", [str(tmp_path)])
        vectors = torch.zeros(1, tokenizer.embedding_size)
        save_file({"emb_params": vectors}, tmp_path / "known.safetensors")
    for word, fault in (
        ("embedding:known", "names an embedding"),
        ("(dog:1.2)", "has a weight"),
        ("embedding:unknown", "is no word"),
    ):
        concept = run("LoadConceptImages", name="x", class_word=word, folder="dog", resolution=64)[0]
        with pytest.raises(ValueError, match=f"{re.escape(word)}.* {fault}"):
            select(concept)


def test_overlong_captions_are_refused_before_selection(run, select, photos):
    long = "a photo of {} " + "very " * 80
    concept = run(
        "LoadConceptImages", name="x", class_word="dog", folder="dog", caption_source="own text", caption=long
    )[0]
    with pytest.raises(ValueError, match=r"caption of 0\.png: .* 8\d tokens; at most 75 fit"):
        select(concept)


def test_cancel_is_seen_before_any_caption_is_read(comfy, select, models, dog, monkeypatch):
    from ComfyUI_CNS.cns_core.host import prepare

    read = []
    monkeypatch.setattr(prepare, "check_length", lambda clip, prompts: read.append(prompts))
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        select(dog)
    assert not read
