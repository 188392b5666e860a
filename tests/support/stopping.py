"""Cancel, pressed at a step of training."""

from types import ModuleType
from typing import Any

# Of each concept in the tests of nodes; so many are encoded before step 1, which the progress bar shows too.
PICTURES = 3


def stop_at(comfy: ModuleType, step: int) -> Any:
    def cancel(value: int, total: int, preview: Any, node_id: Any = None) -> None:
        if value == step and total != PICTURES:
            comfy.model_management.interrupt_current_processing()

    return cancel
