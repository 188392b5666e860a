"""Stable Diffusion 1.x."""

from .family import Family

SD1 = Family(
    name="SD1",
    title="Stable Diffusion 1.x",
    host_class="SD15",
    text_width=768,
    architecture="stable-diffusion-v1",
    base_version="sd_v1",
)
