"""A world of emoji scenes, and the tools that make a small base model in SD 1.5's layout of it.

Run `python3 dev.py base --help`.
"""
