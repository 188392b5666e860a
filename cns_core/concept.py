"""What is to be learned: `TrainingImage`, `Concept`, and the rules for names and tokens."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .framing import Framing
from .method import Taught
from .values import odd_character, shown

KINDS = ("subject", "style", "scene")
ERASURE = "erasure"  # the kind of an entry of a memory that takes something out, and has no token
MAX_CAPTIONS = 64  # that tell of a concept in a memory
MAX_NAME_LENGTH = 64
MAX_TOKEN = 128  # characters
BUCKET_STEP = 64  # pixels; eight latent cells, so that the U-Net's three halvings come out even
_TOKEN = re.compile(r"<[a-z0-9][a-z0-9_-]*>")


@dataclass(frozen=True, eq=False)
class TrainingImage:
    """One picture, ready for training, with every wording that may be paired with it.

    `pixels` is (H, W, 3) float32 in [0, 1] with H and W multiples of 64. `mask` is (H, W) float32 in [0, 1],
    1 where the picture shows what is to be learned. `source` names it for people. `framing` is what it was
    cut from, None where it is as it always was. ValueError for all else.
    """

    pixels: Tensor
    captions: tuple[str, ...]
    mask: Tensor | None
    source: str
    framing: Framing | None = None

    def __post_init__(self) -> None:
        shape = tuple(self.pixels.shape)
        if len(shape) != 3 or shape[2] != 3 or any(side == 0 or side % BUCKET_STEP for side in shape[:2]):
            raise ValueError(
                f"{self.source}: pixels have shape {shape}, expected (height, width, 3) with both sides "
                f"multiples of {BUCKET_STEP}. Bring the picture to its bucket with cns_core.images.fit first."
            )
        _check_unit_range(self.source, "pixels", self.pixels)
        if self.mask is not None:
            if tuple(self.mask.shape) != shape[:2]:
                raise ValueError(
                    f"{self.source}: the mask has shape {tuple(self.mask.shape)}, expected {shape[:2]} like "
                    "the picture. Resize both together with cns_core.images.fit."
                )
            _check_unit_range(self.source, "mask", self.mask)
        if not self.captions:
            raise ValueError(
                f"{self.source}: no caption, expected at least one. Give it a caption that has the token."
            )


@dataclass(frozen=True, eq=False)
class Concept:
    """One concept to learn; compare two by their `digest()`. ValueError when it cannot be learned."""

    name: str
    token: str
    class_word: str
    kind: str
    images: tuple[TrainingImage, ...]

    def __post_init__(self) -> None:
        check_name(self.name)
        if check_token(self.token) != self.token:
            raise ValueError(
                f"Token {self.token!r} is not normalised. Pass {check_token(self.token)!r} instead."
            )
        check_class_word(self.class_word)
        check_kind(self.kind)
        if not self.images:
            raise ValueError(
                f"Concept {self.name!r} has 0 pictures, expected at least 1. Add a picture of it."
            )
        for image in self.images:
            for caption in image.captions:
                if self.token not in caption:
                    raise ValueError(
                        f"{image.source}: caption {caption!r} lacks the token {self.token}, so it could "
                        "teach nothing about the concept. Write the token where the concept is mentioned."
                    )

    def class_caption(self, caption: str) -> str:
        """A caption, made to speak of the class: 'a photo of <my-dog>' becomes 'a photo of dog'."""
        return caption.replace(self.token, self.class_word)

    def class_captions(self) -> tuple[str, ...]:
        """One caption of each image, about the class in general;
        images take turns where they share several wordings.
        """
        chosen = [image.captions[i % len(image.captions)] for i, image in enumerate(self.images)]
        return tuple(dict.fromkeys(map(self.class_caption, chosen)))

    def taught(self) -> Taught:
        """What prompts tell of it: each of its captions once, spread over all where there are many."""
        captions = list(dict.fromkeys(c for image in self.images for c in image.captions))
        few = captions[:: -(-len(captions) // MAX_CAPTIONS)]
        return Taught(self.token, self.class_word, tuple(few))

    def framings(self) -> tuple[Framing | None, ...]:
        """What each image was cut from."""
        return tuple(image.framing for image in self.images)

    def digest(self) -> str:
        """SHA-256 (hex) over every field, pixels and masks included; the same in every process. Framings are
        left out, for most models are told nothing of them: where they count, they are told apart besides.
        """
        sha = hashlib.sha256()
        for part in self._parts():
            # The length goes in first, so that ('ab', 'c') and ('a', 'bc') differ.
            sha.update(len(part).to_bytes(8, "little"))
            sha.update(part)
        return sha.hexdigest()

    def _parts(self) -> Iterator[bytes]:
        for text in (self.name, self.token, self.class_word, self.kind, str(len(self.images))):
            yield text.encode("utf-8", "surrogatepass")
        for image in self.images:
            for text in (image.source, str(len(image.captions)), *image.captions):
                yield text.encode("utf-8", "surrogatepass")
            for tensor in (image.pixels, image.mask):
                yield repr(None if tensor is None else tuple(tensor.shape)).encode()
                if tensor is not None:
                    yield tensor.detach().cpu().numpy().astype("<f4").tobytes()


def make_token(name: str) -> str:
    """A token made from a concept's name: 'My dog' -> '<my-dog>', 'Café Müller' -> '<cafe-muller>'.

    ValueError when a letter or digit of it has no counterpart in ASCII (a name in Chinese, say), so that
    other names might get the same one: the user then writes a token.
    """
    check_name(name)
    stem = _token_stem(name)
    lost = sorted({c for c in _plain(name) if unicodedata.category(c)[0] in "LN" and not c.isascii()})
    if lost or not stem:
        what = (
            f"{', '.join(lost[:5])} cannot be written in a-z or 0-9" if lost else "it has no letter or digit"
        )
        raise ValueError(
            f"No token can be made from the name {name!r}: {what}. "
            "Write a token yourself, for example <my-concept>."
        )
    return check_token(f"<{stem}>")


def check_token(token: str) -> str:
    """The token as CLIP's tokenizer will see it (lower case), or ValueError with a token that would do."""
    lowered = token.strip().lower()
    if _TOKEN.fullmatch(lowered) and len(lowered) <= MAX_TOKEN:
        return lowered
    stem = _token_stem(lowered)[: MAX_TOKEN - 2]
    proposal = f"<{stem}>" if stem else "<my-concept>"
    if stem and lowered == stem:
        raise ValueError(
            f"Token {shown(token)} is an ordinary word, and its meaning in the model would be overwritten. "
            f"Expected a token in angle brackets: use {proposal}."
        )
    raise ValueError(
        f"Token {shown(token)} is not usable. Expected one word in angle brackets: a letter or digit, then "
        f"letters, digits, hyphens or underscores, {MAX_TOKEN} characters at most. Use for example "
        f"{proposal}."
    )


def check_free(token: str, name: str, taken: Iterable[tuple[str, str]]) -> None:
    """ValueError when a (name, token) pair in `taken` already has this name, in any case, or this token."""
    for other_name, other_token in taken:
        if same_name(other_name) == same_name(name):
            raise ValueError(
                f"A concept named {other_name!r} has been learned already (token {other_token}). "
                f"Give the new concept a name other than {name!r}."
            )
        if other_token.lower() == token.lower():
            raise ValueError(
                f"Token {token} already belongs to the concept {other_name!r}. Choose a token for {name!r} "
                "that no learned concept has."
            )


def check_kind(kind: str) -> None:
    """ValueError unless `kind` is one of KINDS."""
    if kind not in KINDS:
        raise ValueError(f"Kind {kind!r} is unknown. Choose one of: {', '.join(KINDS)}.")


def _token_stem(text: str) -> str:
    plain = _plain(text).encode("ascii", "ignore").decode("ascii").lower()
    return re.sub(r"[^a-z0-9_-]+", "-", plain.replace("'", "")).strip("-_")


def _plain(text: str) -> str:
    # casefold before NFKD: a sharp s has no decomposition, but folds to 'ss'.
    return unicodedata.normalize("NFKD", text.casefold())


def same_name(name: str) -> str:
    """A text that is equal for names that people would call the same."""
    return unicodedata.normalize("NFKC", name).strip().casefold()


def check_name(name: str) -> None:
    """ValueError unless a concept may be named so."""
    if not name.strip():
        raise ValueError(f"The concept's name is empty ({name!r}). Give it a name such as 'my dog'.")
    if len(name) > MAX_NAME_LENGTH:
        raise ValueError(
            f"The concept's name has {len(name)} characters, expected at most {MAX_NAME_LENGTH}. Shorten it: "
            f"{name[:20]!r}..."
        )
    if (odd := odd_character(name)) is not None:
        raise ValueError(
            f"The concept's name {name!r} contains the control character {odd}, expected printable text on "
            "one line. Remove it."
        )


def check_class_word(word: str) -> None:
    """ValueError unless a token may start from this word, as far as that can be told without a tokenizer."""
    if not word.strip() or "<" in word or ">" in word or len(word) > MAX_NAME_LENGTH or odd_character(word):
        raise ValueError(
            f"Class word {shown(word)}: expected an ordinary word such as 'dog', without < or >, of at most "
            f"{MAX_NAME_LENGTH} characters. Write what kind of thing the concept is."
        )


def _check_unit_range(source: str, what: str, tensor: Tensor) -> None:
    if tensor.dtype != torch.float32:
        raise ValueError(
            f"{source}: {what} are {tensor.dtype}, expected torch.float32. Convert with .float()."
        )
    low, high = tensor.min().item(), tensor.max().item()
    if not (low >= 0.0 and high <= 1.0):  # written so that NaN fails as well
        raise ValueError(
            f"{source}: {what} range from {low:g} to {high:g}, expected 0 to 1. Rescale the picture."
        )
