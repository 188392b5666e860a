"""Where the art comes from: published npm packages, by name and version, checked against known digests."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from .world import SPRITE_SIZE

LONGER_SIDE = 92  # of the 96: two pixels of air on each side
DRAWN = 384  # what a vector drawing is rendered at before it is made small
VISIBLE = 8  # alpha from which a pixel counts as part of the drawing


class SourceError(RuntimeError):
    """A package could not be had, or is not what it should be."""


@dataclass(frozen=True)
class Package:
    """One published package."""

    name: str
    version: str
    sha256: str  # of the tarball

    @property
    def tarball(self) -> str:
        """The file name that `npm pack` gives it."""
        return f"{self.name.removeprefix('@').replace('/', '-')}-{self.version}.tgz"


NOTO = Package(
    "@iconify-json/noto", "1.2.9", "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad"
)
TWEMOJI = Package(
    "@discordapp/twemoji", "16.0.1", "2278fd609501e20dc646a546c1d7bbcab86a4c38010ded12b45e61f9687b9d0a"
)
FLUENT = Package(
    "@lobehub/fluent-emoji-3d", "1.1.0", "c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58"
)
OPENMOJI = Package("openmoji", "17.0.0", "55ee7d13485dec86e9f38c1f3a645a13382d33ff97c0cd845ee824b0aef45e68")
EMOJIBASE = Package(
    "emojibase-data", "17.0.0", "d01d0e2ca4e22cb402679532155342c71e2e871f25c32223c013b8b166ebdf5a"
)

Draw = Callable[[], Image.Image]


def obtain(package: Package, cache: Path) -> Path:
    """The package's tarball in the folder `cache`, fetched with npm if it is not there yet.

    Raises:
        SourceError: npm is missing or fails, or the tarball is another than the pinned one.
    """
    cache.mkdir(parents=True, exist_ok=True)
    tarball = cache / package.tarball
    if not tarball.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise SourceError(
                f"{package.name}@{package.version} is not in {cache}, and npm, which would fetch it, is not "
                f"installed. Install Node.js, or put {package.tarball} there."
            )
        done = subprocess.run(
            [npm, "pack", f"{package.name}@{package.version}", "--ignore-scripts", "--loglevel=error"],
            cwd=cache,
            capture_output=True,
            text=True,
        )
        if done.returncode or not tarball.exists():
            raise SourceError(
                f"npm pack {package.name}@{package.version} ended with {done.returncode} and left no "
                f"{package.tarball} in {cache}: {done.stderr.strip()[-400:] or 'it said nothing'}"
            )
    found = hashlib.sha256(tarball.read_bytes()).hexdigest()
    if found != package.sha256:
        raise SourceError(
            f"{tarball} is not the pinned {package.name}@{package.version}: its sha256 is {found}, not "
            f"{package.sha256}. Delete it and build again."
        )
    return tarball


def members(tarball: Path, folder: str, suffix: str) -> dict[str, bytes]:
    """The files in the package's `folder` (not below it) whose name ends in `suffix`: stem -> contents."""
    found: dict[str, bytes] = {}
    with tarfile.open(tarball, "r:gz") as archive:
        for member in archive:
            place, _, name = member.name.rpartition("/")
            if member.isfile() and place == f"package/{folder}".rstrip("/") and name.endswith(suffix):
                opened = archive.extractfile(member)
                assert opened is not None
                found[name.removesuffix(suffix)] = opened.read()
    if not found:
        raise SourceError(f"{tarball} holds no {folder}/*{suffix}; it is laid out otherwise than expected.")
    return found


def code(hexcode: str) -> str:
    """Code points in one spelling, for each package has its own: `1F577-FE0F` -> `1f577`."""
    return "-".join(part.lstrip("0") for part in hexcode.lower().split("-") if part != "fe0f")


def emoji_records(cache: Path) -> tuple[list[dict], dict[int, str]]:
    """Emojibase's English records (label, hexcode, tags, subgroup ...) and its subgroups' names."""
    tarball = obtain(EMOJIBASE, cache)
    records = json.loads(members(tarball, "en", ".json")["data"])
    subgroups = json.loads(members(tarball, "meta", ".json")["groups"])["subgroups"]
    return records, {int(number): name for number, name in subgroups.items()}


def _draw_svg(text: str) -> Image.Image:
    import resvg_py

    # No fonts: looking for them takes longer than the drawing, and no emoji has text in it.
    png = resvg_py.svg_to_bytes(svg_string=text, width=DRAWN, height=DRAWN, skip_system_fonts=True)
    return Image.open(io.BytesIO(bytes(png)))


def _svg(text: str) -> Draw:
    return lambda: _draw_svg(text)


def _raster(data: bytes) -> Draw:
    return lambda: Image.open(io.BytesIO(data))


def _noto(cache: Path) -> dict[str, Draw]:
    files = members(obtain(NOTO, cache), "", ".json")
    icons, characters = json.loads(files["icons"]), json.loads(files["chars"])
    width, height = icons["width"], icons["height"]
    start = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="0 0 {width} {height}">'
    )
    return {
        code(hexcode): _svg(start + icons["icons"][name]["body"] + "</svg>")
        for hexcode, name in characters.items()
        if name in icons["icons"]
    }


def _vectors(package: Package, folder: str, cache: Path) -> dict[str, Draw]:
    found = members(obtain(package, cache), folder, ".svg")
    return {code(name): _svg(data.decode()) for name, data in found.items()}


def house_styles(cache: Path) -> dict[str, dict[str, Draw]]:
    """Style -> code points (see `code`) -> a function that draws that emoji, RGBA and square."""
    fluent = members(obtain(FLUENT, cache), "assets", ".webp")
    return {
        "noto": _noto(cache),
        "twemoji": _vectors(TWEMOJI, "dist/svg", cache),
        "fluent": {code(name): _raster(data) for name, data in fluent.items()},
        "openmoji": _vectors(OPENMOJI, "color/svg", cache),
    }


def sprite(drawing: Image.Image) -> np.ndarray:
    """A drawing as a sprite: cropped to what is visible, made small, centred.

    Returns:
        uint8 (96, 96, 4), alpha not multiplied in; colour is 0 where alpha is.
    """
    drawing = drawing.convert("RGBA")
    box = drawing.getchannel("A").point(lambda alpha: 255 * (alpha >= VISIBLE)).getbbox()
    if box is None:
        raise SourceError("a drawing has nothing visible in it.")
    # RGBa: with alpha multiplied in, else the invisible pixels' colour would bleed into the outline.
    cropped = drawing.crop(box).convert("RGBa")
    scale = LONGER_SIDE / max(cropped.size)
    size = (max(1, round(cropped.width * scale)), max(1, round(cropped.height * scale)))
    small = cropped.resize(size, Image.Resampling.HAMMING).convert("RGBA")
    whole = Image.new("RGBA", (SPRITE_SIZE, SPRITE_SIZE))
    whole.paste(small, ((SPRITE_SIZE - size[0]) // 2, (SPRITE_SIZE - size[1]) // 2))
    pixels = np.array(whole)
    pixels[pixels[..., 3] == 0] = 0
    return pixels
