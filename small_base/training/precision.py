"""What the small base's networks are trained in."""

from __future__ import annotations

import torch


def mixed_precision(device: torch.device) -> torch.autocast:
    """A context of mixed precision in bfloat16, which does nothing on a CPU that would only emulate it."""
    # Of CPUs only those with instructions for it; PyTorch 2.6 and newer can tell.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    fast = device.type != "cpu" or (supported is not None and bool(supported()))
    return torch.autocast(device.type, torch.bfloat16, enabled=fast)
