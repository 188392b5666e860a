"""What a file says of itself in the keys that other tools read (LoRA managers, web sites for sharing)."""

from __future__ import annotations

import json

from .families import FAMILIES
from .memory import ConceptMemory
from .thumbnails import data_url


def model_card(memory: ConceptMemory, title: str, what: str, triggers: list[str]) -> dict[str, str]:
    """Safetensors metadata.

    what: kind of file, such as "lora"; triggers: what to write in prompts, in the order of the concepts
    that have a token.
    """
    name = memory.base.family
    family = FAMILIES.get(name)
    newest = memory.concepts[-1] if memory.concepts else None
    thumbnail = {"modelspec.thumbnail": data_url(newest.thumbnail)} if newest and newest.thumbnail else {}
    tags = zip(memory.with_tokens(), triggers, strict=True)
    return {
        **thumbnail,
        "format": "pt",
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.title": title,
        "modelspec.architecture": f"{family.architecture if family else name}/{what}",
        "modelspec.implementation": "ComfyUI-CNS",
        "modelspec.date": newest.learned_at if newest else "",
        "modelspec.trigger_phrase": ", ".join(triggers),
        "ss_base_model_version": family.base_version if family else name,
        "ss_output_name": title,
        "ss_tag_frequency": json.dumps({c.name: {trigger: 1, c.class_word: 1} for c, trigger in tags}),
    }
