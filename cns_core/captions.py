"""Where captions come from: templates per kind, `.txt` files beside the pictures, the user's own text.

Also the 128 calibration prompts that find the general neurons (Eq. 5); they name no concept.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from .concept import MAX_TOKEN, check_kind, check_token
from .picture_files import stays_inside
from .values import shown

CAPTION_SOURCES = ("templates", "txt files", "own text")
CALIBRATION_COUNT = 128
MAX_CAPTION = 2_000  # characters; the 75 tokens that can be trained on are some 400
_MAX_FILE = 100_000  # bytes
_MAX_LINES = 1_000  # of own text, or of a file that has a caption a line
_ENDINGS = (".txt", ".TXT", ".Txt", ".caption")
_CALIBRATION_FILE = Path(__file__).with_name("calibration_prompts.txt")

TEMPLATES: dict[str, tuple[str, ...]] = {
    "subject": (
        "a photo of {}",
        "a close-up photo of {}",
        "one clear photo of {}",
        "a bright photo of {}",
        "a dim photo of {}",
        "a sharp photo of {}",
        "a slightly blurred photo of {}",
        "a photo of {} seen from the front",
        "a photo of {} seen from the side",
        "a photo of {} from a distance",
        "a tightly cropped photo of {}",
        "a snapshot of {}",
        "an amateur photo of {}",
        "a professional photo of {}",
        "a detailed picture of {}",
        "a simple picture of {}",
        "a picture showing {}",
        "a picture with {} in the middle",
        "a colour photograph of {}",
        "this is {}",
    ),
    "style": (
        "a painting in the style of {}",
        "a picture in the style of {}",
        "an artwork in the style of {}",
        "a drawing in the style of {}",
        "an illustration in the style of {}",
        "a landscape in the style of {}",
        "a portrait in the style of {}",
        "a detailed work in the style of {}",
        "a small study in the style of {}",
        "a colourful image in the style of {}",
        "a scene rendered in the style of {}",
        "a composition made in the style of {}",
    ),
    "scene": (
        "a photo of a place like {}",
        "a wide view of {}",
        "a photo taken at {}",
        "the view across {}",
        "a picture of the surroundings at {}",
        "a bright photo of {} without people",
        "a dim photo of {} in the evening",
        "a wide-angle photo of {}",
        "a photo of one corner of {}",
        "a quiet moment at {}",
        "a photo with {} in the background",
        "standing in the middle of {}",
    ),
}


@dataclass(frozen=True)
class CaptionRule:
    """How the pictures of one concept get their captions. ValueError for a bad source, token, kind or text.

    Each line of own text is one caption, for training to draw from. What stands in a caption file is one
    caption, or with `each_line` one in each line.
    """

    source: str
    token: str
    class_word: str
    kind: str = "subject"
    own_text: str = ""
    each_line: bool = False

    def __post_init__(self) -> None:
        if self.source not in CAPTION_SOURCES:
            raise ValueError(
                f"Caption source {self.source!r} is unknown. Choose one of: {', '.join(CAPTION_SOURCES)}."
            )
        check_token(self.token)
        check_kind(self.kind)
        if self.source == "own text" and not self.own_text.strip():
            raise ValueError(
                f"The caption source is 'own text', but the text is empty ({self.own_text!r}). Write a "
                "caption such as 'a photo of {} on the beach', or choose 'templates'."
            )

    def captions_for(self, image_path: Path | None) -> tuple[str, ...]:
        """The captions of one picture, each with the token; `image_path` is None when it is no file."""
        if self.source == "templates":
            return template_captions(self.kind, self.token)
        if self.source == "own text":
            texts = self.own_text.splitlines()
        elif image_path is None:
            raise ValueError(
                "The caption source is 'txt files', but these pictures come from an IMAGE input and have no "
                "files beside them. Choose 'templates' or 'own text', or load the pictures from a folder."
            )
        else:
            text = caption_file(image_path)
            texts = text.splitlines() if self.each_line else [text]
        written = [text for text in texts if text.strip()]
        if len(written) > _MAX_LINES:
            raise ValueError(
                f"{len(written):,} captions were given, expected at most {_MAX_LINES:,}. Leave some out."
            )
        return tuple(caption_from_text(text, self.token, self.class_word) for text in written)


def template_captions(kind: str, token: str) -> tuple[str, ...]:
    """Every template of this kind, filled with the token."""
    check_kind(kind)
    token = check_token(token)
    return tuple(template.replace("{}", token) for template in TEMPLATES[kind])


def caption_from_text(text: str, token: str, class_word: str) -> str:
    """One caption with the token in it, on one line.

    In this order: `{}` is filled; a token that is there already stays; the first whole-word occurrence of the
    class word becomes the token ('a dog runs' -> 'a <my-dog> runs'); otherwise the token goes in front.
    ValueError if text is empty.
    """
    token = check_token(token)
    check_bounded(text)
    caption = " ".join(text.split())
    if not caption:
        raise ValueError(
            f"The caption is empty ({text!r}). Write at least one word, or '{{}}' for the token alone."
        )
    if "{}" in caption:
        filled = caption.replace("{}", token)
        check_bounded(filled)
        return filled
    if token in caption.lower():
        return re.sub(re.escape(token), token, caption, flags=re.IGNORECASE)
    return in_place_of_class_word(caption, token, class_word) or f"{token}, {caption}"


def in_place_of_class_word(caption: str, token: str, class_word: str) -> str | None:
    """The caption with the token instead of the first whole-word occurrence of the class word, in any case;
    None when there is no such occurrence.
    """
    word = " ".join(class_word.split())
    if not word:
        return None
    # Hyphens and brackets count as part of a word: neither 'hot-dog' nor another token '<dog>' is a dog.
    pattern = rf"(?<![\w<-]){re.escape(word)}(?![\w>-])"
    # A function, because a replacement string would give backslashes a meaning.
    replaced, times = re.subn(pattern, lambda _: token, caption, count=1, flags=re.IGNORECASE)
    return replaced if times else None


def check_bounded(text: str) -> None:
    """ValueError for a caption that a memory could not keep, before any more work is done with it."""
    most = MAX_CAPTION - MAX_TOKEN - 2  # where no token is, one comes in front
    if len(text) > most:
        raise ValueError(
            f"The caption has {len(text):,} characters, expected at most {most:,}: {shown(text)}. Shorten it."
        )


def caption_file(image_path: Path) -> str:
    """The text of the caption file beside a picture, `dog.txt` or as other trainers write it: `dog.TXT`,
    `dog.jpg.txt`, `dog.caption`. ValueError when it is missing, empty or no text.
    """
    path = find_caption_file(image_path)
    if path is None:
        raise ValueError(
            f"{image_path.name} has no caption file: expected {image_path.with_suffix('.txt')}. Write it, or "
            "choose the caption source 'templates'."
        )
    text = text_of(path)
    if not text:
        raise ValueError(
            f"{path} is empty, expected a caption. Write one, or choose the caption source 'templates'."
        )
    return text


def find_caption_file(image_path: Path) -> Path | None:
    """Where the caption of a picture is read from; None when no file is there."""
    names = [f"{stem}{ending}" for ending in _ENDINGS for stem in (image_path.stem, image_path.name)]
    return next((path for path in map(image_path.with_name, names) if path.exists()), None)


def text_of(path: Path) -> str:
    """What stands in a caption file, without space around it. ValueError when it is a link to a file
    elsewhere, too large, or no text.
    """
    if not stays_inside(path):
        raise ValueError(
            f"{path} is a link to a file elsewhere, which could be any. Put the caption file itself beside "
            "the picture."
        )
    if (size := path.stat().st_size) > _MAX_FILE:
        raise ValueError(
            f"{path} has {size:,} bytes, expected a caption of at most {_MAX_FILE:,}. Shorten it, or choose "
            "the caption source 'templates'."
        )
    try:
        data = path.read_bytes()
        marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        text = data.decode("utf-16" if marked else "utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8 text ({error.reason} at byte {error.start}). Save it as UTF-8."
        ) from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error}). Make it a readable text file.") from error
    strange = sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cn", "Co") and not c.isspace()})
    if strange:
        raise ValueError(
            f"{path} holds {', '.join(map(repr, strange[:3]))}, so it is no text, or UTF-16 without its "
            "mark. Save it as UTF-8."
        )
    return text


def calibration_prompts(n: int = CALIBRATION_COUNT) -> tuple[str, ...]:
    """The first n of the 128 calibration prompts; any leading part is as varied as the whole."""
    if not 1 <= n <= CALIBRATION_COUNT:
        raise ValueError(
            f"{n} calibration prompts asked for, but there are {CALIBRATION_COUNT}. "
            f"Choose 1 to {CALIBRATION_COUNT}."
        )
    return tuple(_CALIBRATION_FILE.read_text(encoding="utf-8").splitlines()[:n])
