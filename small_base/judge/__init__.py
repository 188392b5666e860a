"""A small CLIP that knows the whole world, and what it says of the base."""
