"""Stable Diffusion XL: two text encoders side by side; beside the cross-attention a pooled text and sizes."""

from .family import Family

SDXL = Family(
    name="SDXL",
    title="SDXL",
    host_class="SDXL",
    text_width=2048,
    architecture="stable-diffusion-xl-v1-base",
    base_version="sdxl_base_v1-0",
    told_sizes=True,
    least_side=768,
)
