"""The only package that imports ComfyUI: thin adapters between its objects and the core's records."""
