"""Where a `transformers` model comes from: a folder below `models/`, or Hugging Face."""

from __future__ import annotations

import logging
import os
from pathlib import Path


def told_fetched(source: str, cache: Path, what: str) -> list[str]:
    """A line about a model that loading will fetch from Hugging Face into a folder, or none when it is there.

    source: a folder's path or a Hugging Face id; what: the model, in words.
    """
    if os.path.isdir(source) or (cache / f"models--{source.replace('/', '--')}").exists():
        return []
    logging.warning(f"CNS: {source} is no folder below models/; it is fetched from Hugging Face into {cache}")
    return [f"- the {what} {source} was fetched from Hugging Face into {cache}"]
