"""Names, tokens and the checks on a concept."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cns_core.concept import (
    MAX_TOKEN,
    Concept,
    TrainingImage,
    check_free,
    check_kind,
    check_token,
    make_token,
)

ROOT = Path(__file__).parents[2]


def image(**changes: object) -> TrainingImage:
    fields = {
        "pixels": torch.linspace(0, 1, 64 * 128 * 3).reshape(64, 128, 3),
        "captions": ("a photo of <my-dog>", "<my-dog> asleep"),
        "mask": None,
        "source": "dog.png",
    }
    return TrainingImage(**{**fields, **changes})  # type: ignore[arg-type]


def concept(**changes: object) -> Concept:
    fields = {
        "name": "My dog",
        "token": "<my-dog>",
        "class_word": "dog",
        "kind": "subject",
        "images": (image(),),
    }
    return Concept(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_sound_concept_is_accepted_and_frozen() -> None:
    made = concept()
    assert made.class_caption("<my-dog> and <my-dog>'s ball") == "dog and dog's ball"
    with pytest.raises(FrozenInstanceError):
        made.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"name": ""}, "name is empty"),
        ({"name": " \t "}, "name is empty"),
        ({"name": "my\ndog"}, r"control character U\+000A"),
        ({"name": "my\x00dog"}, r"U\+0000"),
        ({"name": "my\u2028dog"}, r"U\+2028"),
        ({"name": "x" * 65}, "65 characters, expected at most 64"),
        ({"images": ()}, "0 pictures, expected at least 1"),
        ({"kind": "person"}, "'person' is unknown.*subject, style, scene"),
        ({"class_word": "  "}, "expected an ordinary word"),
        ({"class_word": "<dog>"}, "without < or >"),
        ({"class_word": "dog>"}, "without < or >"),
        ({"token": "dog"}, "ordinary word"),
        ({"token": "<My-Dog>"}, "Pass '<my-dog>'"),
        ({"token": "<other>"}, "dog.png: caption 'a photo of <my-dog>' lacks the token <other>"),
        ({"images": (image(), image(captions=("a dog",)))}, "'a dog' lacks the token <my-dog>"),
    ],
)
def test_an_unusable_concept_says_why(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        concept(**changes)


def test_a_name_of_64_characters_in_any_script_is_accepted() -> None:
    assert concept(name="犬" * 64).name == "犬" * 64


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"pixels": torch.zeros(64, 65, 3)}, r"\(64, 65, 3\).*multiples of 64"),
        ({"pixels": torch.zeros(0, 64, 3)}, "multiples of 64"),
        ({"pixels": torch.zeros(64, 64, 4)}, "shape"),
        ({"pixels": torch.zeros(64, 64)}, "shape"),
        ({"pixels": torch.zeros(64, 64, 3, dtype=torch.float16)}, "expected torch.float32"),
        ({"pixels": torch.full((64, 64, 3), 255.0)}, "255, expected 0 to 1"),
        ({"pixels": torch.full((64, 64, 3), float("nan"))}, "nan, expected 0 to 1"),
        ({"mask": torch.ones(64, 64)}, r"mask has shape \(64, 64\), expected \(64, 128\)"),
        ({"mask": -torch.ones(64, 128)}, "mask range from -1"),
        ({"captions": ()}, "no caption"),
    ],
)
def test_an_unusable_training_image_names_its_source(changes: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=f"dog.png.*{says}"):
        image(**changes)


def test_digest_changes_with_every_field_and_only_then() -> None:
    base = concept()
    assert base.digest() == concept().digest()
    touched = image().pixels.clone()
    touched[3, 5, 1] += 0.001
    mask = torch.ones(64, 128)
    others = [
        replace(base, name="My cat"),
        replace(base, class_word="cat"),
        replace(base, kind="style"),
        replace(base, token="<d>", images=(image(captions=("<d>", "<d> asleep")),)),
        replace(base, images=(image(), image())),
        replace(base, images=(image(pixels=touched),)),
        replace(base, images=(image(pixels=image().pixels.reshape(128, 64, 3)),)),
        replace(base, images=(image(mask=mask),)),
        replace(base, images=(image(mask=mask * 0.5),)),
        replace(base, images=(image(source="cat.png"),)),
        replace(base, images=(image(captions=("a photo of <my-dog>",)),)),
        # The same characters in the same order, cut in two places:
        replace(base, images=(image(captions=("<my-dog> a", "<my-dog>")),)),
        replace(base, images=(image(captions=("<my-dog>", " a<my-dog>")),)),
    ]
    assert len({base.digest(), *(other.digest() for other in others)}) == len(others) + 1


def test_digest_does_not_depend_on_memory_layout() -> None:
    pixels = torch.rand(64, 128, 3, generator=torch.Generator().manual_seed(0))
    strided = pixels.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    assert not strided.is_contiguous()
    first, second = (concept(images=(image(pixels=p),)) for p in (pixels, strided))
    assert first.digest() == second.digest()


def test_digest_is_the_same_in_another_process() -> None:
    program = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "import torch\n"
        "from cns_core.concept import Concept, TrainingImage\n"
        "image = TrainingImage(torch.full((64, 64, 3), 0.25), ('<x>',), None, 's')\n"
        "print(Concept('n', '<x>', 'dog', 'subject', (image,)).digest())"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    here = TrainingImage(torch.full((64, 64, 3), 0.25), ("<x>",), None, "s")
    assert run.stdout.strip() == Concept("n", "<x>", "dog", "subject", (here,)).digest()


@pytest.mark.parametrize(
    ("name", "token"),
    [
        ("My dog", "<my-dog>"),
        ("Café Müller", "<cafe-muller>"),
        ("Straße 7", "<strasse-7>"),
        ("  --Anna's_dog!!", "<annas_dog>"),
        ("ﬁne ①", "<fine-1>"),
        ("<my-dog>", "<my-dog>"),
    ],
)
def test_make_token(name: str, token: str) -> None:
    assert make_token(name) == token == check_token(token)


@pytest.mark.parametrize(
    "name", ["小狗", "🐶", "---", "!?", "собака 2", "кошка 2", "Łukasz", "犬-3", "dog ٣"]
)
def test_make_token_asks_for_a_token_when_it_would_stand_for_other_names_too(name: str) -> None:
    with pytest.raises(ValueError, match="Write a token yourself"):
        make_token(name)


@given(st.text(min_size=1, max_size=64))
def test_make_token_gives_a_valid_token_or_an_error(name: str) -> None:
    try:
        token = make_token(name)
    except ValueError:
        return
    assert check_token(token) == token


def test_check_token_normalises() -> None:
    assert check_token(" <My-Dog_2> ") == "<my-dog_2>"


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ("dog", "'dog' is an ordinary word, and its meaning in the model would be overwritten.*use <dog>"),
        ("Dog", "ordinary word.*use <dog>"),
        ("", "not usable.*<my-concept>"),
        ("<>", "not usable.*<my-concept>"),
        ("<my dog>", "not usable.*<my-dog>"),
        ("<-dog>", "not usable.*<dog>"),
        ("<dög>", "not usable.*<dog>"),
        ("<a><b>", "not usable.*<a-b>"),
        ("<a>\n<b>", "not usable"),
        ("<dog", "not usable.*<dog>"),
    ],
)
def test_check_token_proposes_another(token: str, says: str) -> None:
    with pytest.raises(ValueError, match=f"(?s){says}"):
        check_token(token)


def test_check_free() -> None:
    taken = [("My dog", "<my-dog>"), ("Café", "<cafe>")]
    check_free("<cat>", "My cat", taken)
    check_free("<cat>", "My cat", iter(()))
    with pytest.raises(ValueError, match="named 'My dog' has been learned already"):
        check_free("<cat>", "my DOG ", taken)
    with pytest.raises(ValueError, match="named 'Café'"):
        check_free("<cat>", "CAFE\u0301", taken)
    with pytest.raises(ValueError, match="<cafe> already belongs to the concept 'Café'"):
        check_free("<cafe>", "My bar", taken)


def test_check_kind() -> None:
    check_kind("style")
    with pytest.raises(ValueError, match="Choose one of"):
        check_kind("Style")


def test_a_token_that_no_file_could_keep_is_refused() -> None:
    longest = f"<{'a' * (MAX_TOKEN - 2)}>"
    assert check_token(longest) == longest
    with pytest.raises(ValueError, match=f"{MAX_TOKEN} characters at most") as caught:
        check_token(f"<{'a' * 10_000}>")
    assert len(str(caught.value)) < 500
    with pytest.raises(ValueError, match=f"{MAX_TOKEN} characters at most"):
        make_token("\ufb03" * 64)  # one letter each, three in ASCII
