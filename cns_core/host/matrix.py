"""Every concept drawn and scored as of every stage, in the host. Pictures are kept in `user/cns/matrix`, so
that what was stopped goes on, and one more concept costs one more stage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from ..evaluation.clip_scores import ClipScorer
from ..evaluation.matrix import Cell, Grid, MatrixSettings, Scores, score
from ..evaluation.matrix_plots import picture_grid
from ..memory import ConceptMemory
from .draw import Sampling, draw, without_guidance
from .identity import model_identity
from .kept_pictures import KeptPictures
from .known_models import lasting_digest
from .model import check_pair, check_trainable
from .models_key import models_key, precision_key
from .paths import work_folder
from .personalize import check_drawable, personalize
from .progress import Progress
from .prompts import plain_words
from .references import References
from .scorer import load_scorer
from .text import known_tokens
from .types import Loaded

_SHOWN = 256  # pixels of what goes into a sheet


@dataclass(frozen=True, eq=False)
class MatrixRequest:
    """What is measured: all that decides the pictures and their scores.

    prompts, plain: see `Grid.of`; clip_model: that judges.
    """

    loaded: Loaded
    memory: ConceptMemory
    prompts: str
    plain: str
    references: Sequence[References]
    clip_model: str
    settings: MatrixSettings


@dataclass(frozen=True, eq=False)
class Measured:
    """given: of each concept with references the first one, by token; drawn: of each prompt and stage that of
    the first seed; both small. notes: what there is to tell.
    """

    grid: Grid
    scores: Scores
    given: dict[str, Image.Image]
    drawn: dict[Cell, Image.Image]
    notes: list[str]

    def sheet(self) -> Tensor:
        """`(1, H, W, 3)`: a row for each concept, drawn with the first prompt, and for each plain prompt."""
        grid, stages = self.grid, range(self.grid.stages + 1)
        rows: list[tuple[str, list[Image.Image | None]]] = []
        for number in grid.drawn():
            token, class_word = grid.concepts[number - 1]
            drawn = [
                self.drawn[grid.of_concept(number, stage)[0]] if stage == 0 or stage >= number else None
                for stage in stages
            ]
            rows.append((f"{token} ({class_word})", [self.given.get(token), *drawn]))
        for number, prompt in enumerate(grid.plain):
            cells = (grid.of_plain(stage)[number * len(grid.seeds)] for stage in stages)
            rows.append((prompt, [None, *(self.drawn[cell] for cell in cells)]))
        columns = ["given", "untouched", *(f"{s}: {token}" for s, (token, _) in enumerate(grid.concepts, 1))]
        if not self.given:
            columns, rows = columns[1:], [(label, pictures[1:]) for label, pictures in rows]
        note = f"'{grid.prompts[0]}', seed {grid.seeds[0]}; columns: what was learned last"
        return picture_grid(columns, rows, "Each concept as of each stage", note)


def measure(request: MatrixRequest) -> Measured:
    """Draw what was not drawn before, and score all of it.

    Raises:
        ValueError: the parts do not fit each other; before anything is drawn.
    """
    grid = Grid.of(request.memory, request.prompts, request.plain, request.settings)
    notes = _check_models(request)
    cells, written = grid.cells(), {text: _words(text) for text in grid.texts()}
    scorer, fetched = load_scorer(request.clip_model)
    texts = dict(zip(written, scorer.encode_prompts(list(written.values())), strict=True))
    notes += [note.removeprefix("- ") for note in fetched]
    drawer = _Drawer(request, notes)
    total = sum(map(len, request.references)) + len(cells)
    features: dict[Cell, Tensor] = {}
    drawn: dict[Cell, Image.Image] = {}
    with Progress(total) as progress:
        progress.phase(0, total)
        references, given = _read_references(request.references, scorer, progress, total)
        before = total - len(cells)
        for done, cell in enumerate(cells, start=before + 1):
            picture, new = drawer.picture(cell)
            progress.phase(done, total, picture if new else None)
            features[cell] = scorer.encode_images(picture)[0]
            if cell.seed == grid.seeds[0]:
                drawn[cell] = _small(picture[0])
    earlier = f", the others were taken from {work_folder('matrix')}" if drawer.new < len(cells) else ""
    notes.append(f"{drawer.new} of {len(cells)} pictures were drawn now{earlier}")
    return Measured(grid, score(grid, features, texts, references), given, drawn, notes)


class _Drawer:
    """Draws cells in their order; each stage's model is made when the first of its pictures is missing."""

    def __init__(self, request: MatrixRequest, notes: list[str]) -> None:
        loaded, settings = request.loaded, request.settings
        family, layout = check_pair(loaded.model, loaded.clip)
        identity = model_identity(loaded.model, loaded.clip, family, layout)
        self._key = f"{models_key(loaded, identity)}, {precision_key(loaded)}"
        self._untouched = replace(loaded, model=without_guidance(loaded.model))
        self._memory, self._kept, self.new = request.memory, KeptPictures(notes), 0
        self._sampling = Sampling(settings.steps, settings.cfg)
        self._size = (settings.resolution, settings.resolution)
        self._stage: tuple[int, Loaded] = (0, self._untouched)
        self._folders: dict[int, Path] = {}

    def picture(self, cell: Cell) -> tuple[Tensor, bool]:
        """`(1, H, W, 3)`, and whether it was drawn now."""
        how = repr((self._size, sorted(asdict(self._sampling).items())))
        path = self._folder(cell.stage) / f"{lasting_digest(cell.prompt, str(cell.seed), how)}.png"

        # One at a time: in a batch it would depend on which others are missing.
        def drawn() -> Tensor:
            return draw(self._as_of(cell.stage), [cell.prompt], self._size, [cell.seed], self._sampling)

        picture, new = self._kept.get(path, self._size, drawn)
        self.new += new
        return picture, new

    def _folder(self, stage: int) -> Path:
        if stage not in self._folders:
            memory = self._memory.stage(stage).digest() if stage else "untouched"
            self._folders[stage] = work_folder("matrix") / lasting_digest(self._key, memory)
        return self._folders[stage]

    def _as_of(self, stage: int) -> Loaded:
        if self._stage[0] != stage:
            base = self._untouched
            drawn = personalize(base.model, base.clip, self._memory, as_of=str(stage))
            self._stage = (stage, replace(base, model=drawn.model, clip=drawn.clip))
        return self._stage[1]


def _check_models(request: MatrixRequest) -> list[str]:
    """What to tell of MODEL and CLIP; ValueError where they are not those that the memory was made on, or
    carry what no key can tell apart.
    """
    model, clip = request.loaded.model, request.loaded.clip
    check_pair(model, clip)
    check_trainable(model, clip)
    check_drawable(model, clip, request.memory)
    if tokens := known_tokens(clip):
        raise ValueError(
            f"This CLIP already understands {', '.join(tokens)} (from Apply Personalized UNet), and the "
            "floor is what the untouched model draws. Connect the checkpoint loader's CLIP."
        )
    if any(name.startswith("sampler_") for name in model.model_options):
        return ["MODEL carries what another node makes of classifier-free guidance; drawn without it."]
    return []


def _words(prompt: str) -> str:
    """A prompt as it is scored. ValueError where it names embeddings."""
    written, embeddings = plain_words(prompt)
    if embeddings:
        raise ValueError(
            f"The prompt {prompt!r} names the embedding {', '.join(embeddings)}, which the CLIP that judges "
            "does not know. Write words instead."
        )
    return written


def _read_references(
    given: Sequence[References], scorer: ClipScorer, progress: Progress, total: int
) -> tuple[dict[str, Tensor], dict[str, Image.Image]]:
    """Unit vectors `(n, d)` of each concept's pictures, and the first picture of each, by token."""
    features: dict[str, Tensor] = {}
    first: dict[str, Image.Image] = {}
    done = 0
    for one in given:
        found = []
        for picture in one.pictures():
            found.append(scorer.encode_images(picture))
            first.setdefault(one.token, _small(picture))
            done += 1
            progress.phase(done, total)
        features[one.token] = torch.cat(found)
    return features, first


def _small(picture: Tensor) -> Image.Image:
    """`(H, W, 3)` as PIL holds it, no larger than it is shown."""
    image = Image.fromarray(picture.mul(255).round().byte().cpu().numpy())
    image.thumbnail((_SHOWN, _SHOWN))
    return image
