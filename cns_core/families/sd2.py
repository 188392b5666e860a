"""Stable Diffusion 2.x."""

from .family import Family

SD2 = Family(
    name="SD2",
    title="Stable Diffusion 2.x",
    host_class="SD20",
    text_width=1024,
    architecture="stable-diffusion-v2",
    base_version="sd_v2",
)
