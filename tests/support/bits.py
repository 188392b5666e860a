"""Equality of tensors that counts every bit."""

import torch


def bits(tensor):
    """The bytes of a tensor: some that the host never fills hold NaN, which does not even equal itself."""
    return tensor.contiguous().flatten().view(torch.uint8)
