"""Captions made of what a model says about a picture."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cns_core.caption_wording import SLOT, caption_of
from cns_core.captions import MAX_CAPTION, caption_from_text


@pytest.mark.parametrize(
    ("sentence", "caption"),
    [
        ("a brown dog on grass", "a brown {} on grass"),
        ("A Dog and a dog.", "A {} and a dog"),
        ("two dogs on a sofa", "{}, two dogs on a sofa"),
        ("a hot-dog on a plate", "{}, a hot-dog on a plate"),
        ('  "a dog\nin\tsnow." ', "a {} in snow"),
        ("arafed dog lying on a blanket", "{} lying on a blanket"),
        ("an araffe image of a dog", "an image of a {}"),
        ("a <b> {} `dog`\x00", "a b {}"),
        ("Arafat Airport", "{}, Arafat Airport"),
    ],
)
def test_the_class_word_becomes_the_slot(sentence: str, caption: str) -> None:
    assert caption_of(sentence, "dog") == caption


@pytest.mark.parametrize(
    ("prefix", "sentence", "caption"),
    [
        ("a photo of", "a dog in snow", "a photo of a {} in snow"),
        ("a photo of ", "a puppy in snow", "a photo of {}, a puppy in snow"),
        ("in the style of {}:", "a house by a lake", "in the style of {}: a house by a lake"),
    ],
)
def test_a_prefix_goes_in_front_and_may_name_the_concept(prefix: str, sentence: str, caption: str) -> None:
    assert caption_of(sentence, "dog", prefix) == caption


@pytest.mark.parametrize(
    ("most", "caption"),
    [
        (99, "a {} sits on a sofa, in the light of a lamp. It is late"),
        (12, "a {} sits on a sofa, in the light of a lamp"),
        (9, "a {} sits on a sofa"),  # the comma, and not 'in the light'
        (5, "a {} sits"),  # and not 'on a'
        (1, "{}, a"),
    ],
)
def test_long_sentences_end_where_they_may(most: int, caption: str) -> None:
    said = "a dog sits on a sofa, in the light of a lamp. It is late."
    assert caption_of(said, "dog", most_words=most) == caption


def test_what_makes_no_caption_is_refused() -> None:
    for nothing in ("", " \n", "...", "{}", "arafed"):
        with pytest.raises(ValueError, match=r"the model said .*, expected words"):
            caption_of(nothing, "dog")
    with pytest.raises(ValueError, match="expected at least 1"):
        caption_of("a dog", "dog", most_words=0)
    with pytest.raises(ValueError, match="Class word"):
        caption_of("a dog", "")
    with pytest.raises(ValueError, match="control character"):
        caption_of("a dog", "dog", "a\nb")
    with pytest.raises(ValueError, match="prefix has 201 characters"):
        caption_of("a dog", "dog", "a" * 201)
    with pytest.raises(ValueError, match=r"characters, expected at most"):
        caption_of("y" * MAX_CAPTION, "dog")


@given(st.text(max_size=300), st.integers(1, 40))
def test_every_caption_is_one_line_that_can_be_trained_on(sentence: str, most: int) -> None:
    try:
        caption = caption_of(sentence, "dog", most_words=most)
    except ValueError as error:
        assert "expected words" in str(error)
        return
    assert caption.count(SLOT) == 1 and len(caption.splitlines()) == 1
    trained = caption_from_text(caption, "<my-dog>", "dog")
    assert trained.count("<my-dog>") == 1 and len(trained.split()) <= most + 1
