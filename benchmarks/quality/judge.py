"""What the judge, a CLIP model, says of drawn pictures of learned concepts.

- clip_i: mean cosine of every drawn and every given picture. *score* is it on a scale from 0, the untouched
  base drawing the class word, to 1, the given pictures against each other; it can leave both ends. There is
  none (null) for a concept whose given pictures are less like each other than what the class word draws is
  like them, as of a style that was given of many different things.
- clip_t: mean cosine of each picture and its prompt, with the class word in the token's place.
- fidelity: the share of pictures that are nearer to their own prompt than to the seven others, which ask for
  other places, colours or things; by chance 1/8.
- taken_for: what the pictures score as other concepts, each on its own scale.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from cns_core.evaluation.clip_scores import ClipScorer
from devtools.concept_folders import ConceptFolder

from .prompts import plain_prompts

Pictures = Callable[[ConceptFolder], Tensor]


@dataclass(frozen=True, eq=False)
class _Known:
    """given: unit vectors of a concept's own pictures `(n, d)`; class_word, real: the ends of its scale."""

    given: Tensor
    asked: Tensor  # unit vectors of its plain prompts
    class_word: float
    real: float
    fidelity_of_class_word: float

    def clip_i(self, drawn: Tensor) -> float:
        return float((drawn @ self.given.T).mean())

    def score(self, drawn: Tensor) -> float | None:
        if self.real <= self.class_word:
            return None
        return (self.clip_i(drawn) - self.class_word) / (self.real - self.class_word)


class Judge:
    """Judges pictures `(8, H, W, 3)`, one of each of a concept's prompts.

    Args:
        given: a concept's own pictures.
        untouched: what the untouched base draws of its plain prompts.
    """

    def __init__(self, scorer: ClipScorer, given: Pictures, untouched: Pictures) -> None:
        self._scorer, self._given, self._untouched = scorer, given, untouched
        self._known: dict[str, _Known] = {}

    def look(self, folder: ConceptFolder, drawn: Tensor, others: Sequence[ConceptFolder]) -> dict[str, Any]:
        """The figures of one concept, see above."""
        known, seen = self._of(folder), self._scorer.encode_images(drawn)
        return {
            "clip_i": known.clip_i(seen),
            "class_word": known.class_word,
            "real": known.real,
            "score": known.score(seen),
            "clip_t": float((seen * known.asked).sum(dim=1).mean()),
            "fidelity": fidelity(seen, known.asked),
            "fidelity_of_class_word": known.fidelity_of_class_word,
            "taken_for": {other.name: self._of(other).score(seen) for other in others},
        }

    def together(
        self,
        drawn: Tensor,
        prompts: Sequence[str],
        in_words: Sequence[str],
        shown: Sequence[Sequence[ConceptFolder]],
    ) -> Mapping[str, float]:
        """Means over pictures of several concepts each, and over the best one of each prompt.

        prompts: of each picture, with tokens; in_words: the same without; shown: the concepts in each.
        """
        seen = self._scorer.encode_images(drawn)
        texts = self._scorer.encode_prompts(in_words)
        clip_t = (seen * texts).sum(dim=1).tolist()
        clip_i = [
            sum(self._of(folder).clip_i(one[None]) for folder in folders) / len(folders)
            for one, folders in zip(seen, shown, strict=True)
        ]
        figures: dict[str, float] = {"pictures": len(seen)}
        for name, values in (("clip_i", clip_i), ("clip_t", clip_t)):
            best: dict[str, float] = {}
            for prompt, value in zip(prompts, values, strict=True):
                best[prompt] = max(value, best.get(prompt, value))
            figures |= {name: sum(values) / len(values), f"best_{name}": sum(best.values()) / len(best)}
        return figures

    def _of(self, folder: ConceptFolder) -> _Known:
        if folder.name not in self._known:
            given = self._scorer.encode_images(self._given(folder))
            asked = self._scorer.encode_prompts(plain_prompts(folder))
            plain = self._scorer.encode_images(self._untouched(folder))
            count = len(given)
            # Against each other, not against themselves: the diagonal is 1 whatever the pictures.
            real = (float((given @ given.T).mean()) * count - 1) / (count - 1)
            known = _Known(given, asked, float((plain @ given.T).mean()), real, fidelity(plain, asked))
            self._known[folder.name] = known
        return self._known[folder.name]


def fidelity(seen: Tensor, asked: Tensor) -> float:
    """Unit vectors `(n, d)` of pictures and of their prompts: the share whose own prompt is the nearest."""
    nearest = (seen @ asked.T).argmax(dim=1)
    return float((nearest == nearest.new_tensor(range(len(nearest)))).float().mean())
