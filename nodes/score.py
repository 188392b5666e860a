"""CLIPScore: how much pictures look like a concept and how well they follow the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io, ui
from torch import Tensor

from ..cns_core.concept import Concept
from ..cns_core.evaluation.clip_scores import replace_tokens
from ..cns_core.host.paths import PHOTO_CLIP
from ..cns_core.host.progress import Progress
from ..cns_core.host.prompts import plain_words
from ..cns_core.host.scorer import load_scorer
from ..cns_core.memory import ConceptMemory
from .sockets import ConceptSocket, MemorySocket, schema
from .values import checked


class CLIPScore(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="CLIPScore",
            display_name="CLIP Score",
            description="CLIP-I (likeness to the concept's pictures) and CLIP-T (agreement with the prompt, "
            "its tokens read as class words).",
            search_aliases=["likeness", "CLIP-I", "CLIP-T", "evaluate"],
            is_output_node=True,
            is_input_list=True,
            inputs=[
                io.Image.Input("image", tooltip="Pictures to score."),
                io.String.Input(
                    "prompt",
                    default="",
                    multiline=True,
                    tooltip="The prompt they were drawn with, tokens, weights and all: weights are left out, "
                    "tokens read as class words.",
                ),
                io.String.Input(
                    "clip_model",
                    default=PHOTO_CLIP,
                    tooltip="The CLIP that judges: a Hugging Face id, fetched at first use "
                    "(600 MB for the default), or a transformers CLIP folder below models/.",
                ),
                ConceptSocket.Input(
                    "concept", optional=True, tooltip="The concept the pictures should show."
                ),
                ConceptSocket.Input(
                    "concept_2",
                    optional=True,
                    tooltip="A second concept in the same pictures; scores are averaged.",
                ),
                ConceptSocket.Input(
                    "concept_3", optional=True, tooltip="A third concept in the same pictures."
                ),
                io.Image.Input(
                    "reference",
                    optional=True,
                    tooltip="Pictures to compare with, instead of a concept's own.",
                ),
                MemorySocket.Input(
                    "memory", optional=True, tooltip="Tells the class words of tokens in the prompt."
                ),
            ],
            outputs=[
                io.Float.Output("clip_i", display_name="clip_i"),
                io.Float.Output("clip_t", display_name="clip_t"),
                io.String.Output("text", display_name="text"),
            ],
        )

    @classmethod
    @checked("image", "reference")
    def execute(
        cls,
        image: Sequence[Tensor],
        prompt: str,
        clip_model: str,
        concept: Concept | None = None,
        concept_2: Concept | None = None,
        concept_3: Concept | None = None,
        reference: Sequence[Tensor] = (),
        memory: ConceptMemory | None = None,
    ) -> io.NodeOutput:
        concepts = [c for c in (concept, concept_2, concept_3) if c is not None]
        if reference and concepts:
            raise ValueError(
                "Both a reference and a concept are connected; the pictures are compared with one of them. "
                "Unplug the other."
            )
        words = (memory.class_words() if memory is not None else {}) | {
            c.token: c.class_word for c in concepts
        }
        written, embeddings = plain_words(prompt)
        plain_prompt = replace_tokens(written, words)
        references = [_pictures(reference)] if reference else [[i.pixels for i in c.images] for c in concepts]
        pictures = _pictures(image)
        total = len(pictures) + sum(map(len, references))
        with Progress(total) as progress:
            progress.phase(0, total)
            scorer, fetched = load_scorer(clip_model)
            scores = scorer.score(
                pictures, plain_prompt, references, lambda done: progress.phase(done, total)
            )
        lines = [scores.as_text(), f"- prompt scored: {plain_prompt}", *fetched]
        if (sections := len(scorer.sections(plain_prompt))) > 1:
            lines.append(f"- it is too long for this CLIP: read in {sections} sections, scored by their mean")
        if embeddings:
            lines.append(f"- embeddings cannot be scored and were left out: {', '.join(embeddings)}")
        text = "\n".join(lines)
        clip_i = float("nan") if scores.clip_i is None else scores.clip_i
        return io.NodeOutput(clip_i, scores.clip_t, text, ui=ui.PreviewText(text))


def _pictures(batches: Sequence[Tensor]) -> list[Tensor]:
    """Every picture `(H, W, C)` of some batches."""
    return [picture for batch in batches for picture in batch]
