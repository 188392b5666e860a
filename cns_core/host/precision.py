"""What training computes in."""

from __future__ import annotations

from dataclasses import dataclass

import comfy.model_management as management
import torch


@dataclass(frozen=True)
class Precision:
    """Floating-point types of a training step, bfloat16 or float32 (gradients underflow in float16).

    unet: of the U-Net; text: of the text encoder's linear layers and attention (see `mixed_precision`).
    """

    unet: torch.dtype
    text: torch.dtype


FLOAT32 = Precision(torch.float32, torch.float32)


def fastest_precision(unet_device: torch.device, text_device: torch.device) -> Precision:
    """bfloat16 where a device is fast in it; the text encoder takes float32 beside a U-Net that does."""
    if not _fast_in_bfloat16(unet_device):
        return FLOAT32
    # Of devices other than these two not every PyTorch has autocast in bfloat16.
    text_too = text_device.type in ("cpu", "cuda") and _fast_in_bfloat16(text_device)
    return Precision(torch.bfloat16, torch.bfloat16 if text_too else torch.float32)


def _fast_in_bfloat16(device: torch.device) -> bool:
    if not management.is_device_cpu(device):
        return bool(management.should_use_bf16(device))
    # Of CPUs only those with instructions for it; PyTorch 2.6 and newer can tell.
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return supported is not None and bool(supported())
