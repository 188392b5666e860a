"""A world of emoji scenes, and the tools that make a small base model in SD 1.5's layout of it.

Run `python -m benchmarks.base --help`, or copy this folder alone to another machine and run
`python -m base --help` beside it. Apart from `build`, torch, transformers, numpy and safetensors are all that
it needs.
"""
