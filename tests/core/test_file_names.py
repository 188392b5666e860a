"""Names of files: what is taken, and what is filled in."""

from __future__ import annotations

import unicodedata
from datetime import datetime

import pytest

from cns_core.file_names import checked_file_name

NOW = datetime(2026, 3, 1, 7, 5, 9)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (" my_concepts ", "my_concepts"),
        ("X.SAFETENSORS", "X"),
        ("pets\\dogs/rex.safetensors", "pets/dogs/rex"),
        ("Anna's dog (2), v1.2 & more", "Anna's dog (2), v1.2 & more"),
        ("मेरा कुत्ता", "मेरा कुत्ता"),  # vowel signs are marks, not letters
        ("我的狗", "我的狗"),
        (unicodedata.normalize("NFD", "Café"), unicodedata.normalize("NFC", "Café")),
        ("%date:yyyy-MM-dd%/dog", "2026-03-01/dog"),
        ("%date:yy.M.d hhmmss%", "26.3.1 070509"),
        ("%date%", "%date%"),
        ("%year%%month%%day%_%hour%%minute%%second%", "20260301_070509"),
    ],
)
def test_names_that_are_taken(name: str, path: str) -> None:
    assert checked_file_name(name, NOW) == path


REFUSED = (
    "",
    "  ",
    "a//b",
    "/etc/x",
    "../x",
    "a/..",
    ".hidden",
    "x.",
    "a /b",
    "a:b",
    "a\nb",
    "NUL",
    "com1.x",
)


@pytest.mark.parametrize("name", [*REFUSED, "com1.x", "\ud800", "%date:hh:mm%", "é" * 101])
def test_names_that_are_refused_say_why(name: str) -> None:
    with pytest.raises(ValueError, match="is no usable file name: "):
        checked_file_name(name, NOW)
