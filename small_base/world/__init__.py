"""A world of emoji scenes: what is in it, and captioned pictures of it."""
