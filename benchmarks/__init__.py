"""What the pack does, measured: how well it learns and forgets, how fast, in how much memory."""
