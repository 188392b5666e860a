"""Concept Neuron Selection: teaching a diffusion model concepts one after another.
Only `host/` knows ComfyUI.
"""
