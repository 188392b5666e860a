"""The trained base as one small file."""
