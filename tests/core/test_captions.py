"""Captions from templates, from text and from files; the calibration prompts."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cns_core.captions import (
    MAX_CAPTION,
    TEMPLATES,
    CaptionRule,
    calibration_prompts,
    caption_file,
    caption_from_text,
    template_captions,
)
from cns_core.concept import KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_templates_have_one_slot_each_and_do_not_repeat(kind: str) -> None:
    templates = TEMPLATES[kind]
    assert set(TEMPLATES) == set(KINDS)
    assert len(set(templates)) == len(templates) >= 12
    assert all(template.count("{}") == 1 for template in templates)
    captions = template_captions(kind, "<X-1>")
    assert len(captions) == len(templates)
    assert all(caption.count("<x-1>") == 1 and "{" not in caption for caption in captions)


def test_templates_of_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="'person' is unknown"):
        template_captions("person", "<x>")


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("{} on a beach", "<my-dog> on a beach"),
        ("{} beside {}, a dog", "<my-dog> beside <my-dog>, a dog"),
        ("a {red} {}", "a {red} <my-dog>"),
        ("the <my-dog> sleeps next to a dog", "the <my-dog> sleeps next to a dog"),
        ("The <My-Dog> sleeps", "The <my-dog> sleeps"),
        ("a dog runs after a dog", "a <my-dog> runs after a dog"),
        ("The DOG's ball", "The <my-dog>'s ball"),
        ("an old dog.", "an old <my-dog>."),
        ("hot-dog stand, dogs, bulldog", "<my-dog>, hot-dog stand, dogs, bulldog"),
        ("<dog> in the snow", "<my-dog>, <dog> in the snow"),
        ("on the sofa", "<my-dog>, on the sofa"),
        ("  two\n lines \t ", "<my-dog>, two lines"),
    ],
)
def test_caption_from_text(text: str, caption: str) -> None:
    assert caption_from_text(text, "<my-dog>", "dog") == caption


def test_caption_from_text_with_unusual_class_words() -> None:
    assert caption_from_text("a golden  retriever", "<d>", "Golden Retriever") == "a <d>"
    assert caption_from_text("made in c++ today", "<d>", "c++") == "made in <d> today"
    assert caption_from_text("une école", "<d>", "cole") == "<d>, une école"


@pytest.mark.parametrize("text", ["", "  \n"])
def test_an_empty_caption_is_an_error(text: str) -> None:
    with pytest.raises(ValueError, match="caption is empty"):
        caption_from_text(text, "<d>", "dog")


@given(st.text(min_size=1), st.text(max_size=12))
def test_every_caption_has_the_token(text: str, class_word: str) -> None:
    if text.split():
        assert "<my-dog>" in caption_from_text(text, "<my-dog>", class_word)


def test_caption_file(tmp_path: Path) -> None:
    picture = tmp_path / "a.b.jpg"
    (tmp_path / "a.b.txt").write_bytes(b"\xef\xbb\xbfa caf\xc3\xa9 \r\n")
    assert caption_file(picture) == "a café"


@pytest.mark.parametrize("name", ["dog.txt", "dog.TXT", "dog.jpg.txt", "dog.caption", "dog.jpg.caption"])
def test_caption_files_of_other_trainers(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("a dog", encoding="utf-8")
    assert caption_file(tmp_path / "dog.jpg") == "a dog"
    (tmp_path / "dog.txt").write_text("the nearest name", encoding="utf-16")
    assert caption_file(tmp_path / "dog.jpg") == "the nearest name"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "no caption file"),
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        (b"caf\xe9 x", "not UTF-8"),
        ("a dog".encode("utf-16-le"), "it is no text, or UTF-16 without its mark"),
        (b"a dog\x00", "it is no text"),
    ],
)
def test_an_unusable_caption_file_is_named(tmp_path: Path, content: bytes | None, says: str) -> None:
    if content is not None:
        (tmp_path / "dog.txt").write_bytes(content)
    with pytest.raises(ValueError, match=says) as caught:
        caption_file(tmp_path / "dog.jpg")
    assert str(tmp_path / "dog.txt") in str(caught.value)


def test_a_folder_in_place_of_a_caption_file(tmp_path: Path) -> None:
    (tmp_path / "dog.txt").mkdir()
    with pytest.raises(ValueError, match="cannot be read"):
        caption_file(tmp_path / "dog.jpg")


def test_prose_over_several_lines_is_one_caption(tmp_path: Path) -> None:
    (tmp_path / "dog.txt").write_text("A dog sits\non a sofa.\n\nThe light is warm.\n", encoding="utf-8")
    rule = CaptionRule("txt files", "<d>", "dog")
    assert rule.captions_for(tmp_path / "dog.png") == ("A <d> sits on a sofa. The light is warm.",)


def test_caption_rule(tmp_path: Path) -> None:
    (tmp_path / "dog.txt").write_text("a dog\n\n{} asleep\n", encoding="utf-8")
    from_file = CaptionRule("txt files", "<d>", "dog", each_line=True)
    assert from_file.captions_for(tmp_path / "dog.png") == ("a <d>", "<d> asleep")
    own = CaptionRule("own text", "<d>", "dog", own_text="a dog in snow\nrunning")
    assert own.captions_for(None) == ("a <d> in snow", "<d>, running")
    templates = CaptionRule("templates", "<d>", "dog", "style")
    assert templates.captions_for(tmp_path / "dog.png") == template_captions("style", "<d>")


def test_caption_rule_errors() -> None:
    with pytest.raises(ValueError, match=r"'files' is unknown.*txt files"):
        CaptionRule("files", "<d>", "dog")
    with pytest.raises(ValueError, match="text is empty"):
        CaptionRule("own text", "<d>", "dog", own_text=" \n")
    with pytest.raises(ValueError, match="ordinary word"):
        CaptionRule("templates", "d", "dog")
    with pytest.raises(ValueError, match="Choose one of"):
        CaptionRule("templates", "<d>", "dog", "pet")
    with pytest.raises(ValueError, match="have no files beside them"):
        CaptionRule("txt files", "<d>", "dog").captions_for(None)


def test_calibration_prompts_are_128_different_sentences() -> None:
    prompts = calibration_prompts()
    assert len(prompts) == len({prompt.lower() for prompt in prompts}) == 128
    for prompt in prompts:
        assert 5 <= len(prompt.split()) <= 15, prompt
        assert prompt == prompt.strip() and re.fullmatch(r"[a-z0-9 ,'-]+", prompt), prompt


@pytest.mark.parametrize("n", [16, 64, 128])
def test_any_leading_part_of_the_calibration_prompts_is_varied(n: int) -> None:
    prompts = calibration_prompts(n)
    assert prompts == calibration_prompts(128)[:n]
    openings = Counter(tuple(prompt.split()[:2]) for prompt in prompts)
    assert max(openings.values()) == 1
    words = Counter(word for prompt in prompts for word in set(re.findall(r"[a-z]{4,}", prompt)))
    for common in ("with", "from", "over", "through"):
        words.pop(common, None)
    assert max(words.values()) <= 2 + n // 16, words.most_common(3)


@pytest.mark.parametrize("n", [0, -1, 129])
def test_calibration_prompts_out_of_range(n: int) -> None:
    with pytest.raises(ValueError, match=f"{n} calibration prompts.*Choose 1 to 128"):
        calibration_prompts(n)


def test_a_caption_that_no_memory_could_keep_is_refused() -> None:
    token = f"<{'a' * 100}>"
    for text in ("dog " * 500, "{} " * 30):  # long as written, and once its token is in it
        with pytest.raises(
            ValueError, match=r"The caption has [\d,]+ characters, expected at most .*Shorten it"
        ):
            caption_from_text(text, token, "dog")
    assert len(caption_from_text("a " * 900, token, "dog")) <= MAX_CAPTION
