"""What every way to erase is told to keep."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import text, whole


@dataclass(frozen=True)
class Kept:
    """Beside the concepts of a memory and the words to fall back on, which stay anyway."""

    keep: str = text(
        "",
        "Words or prompts that must stay as they are, one a line: what is much like the erased. General "
        "prompts and all learned concepts stay anyway.",
    )
    general_prompts: int = whole(
        0, 0, 65_536, "How many general prompts stay. 0: 4,096 on a GPU, 1,024 on a CPU.", rare=True
    )
