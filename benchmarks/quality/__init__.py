"""How well concepts are learned, and how little is forgotten."""
