"""How fast training, selecting and drawing are, and how much memory they take, beside the alternatives."""
