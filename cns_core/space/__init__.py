"""A linear space of learned concepts (weights2weights, 2406.09413): many concepts of one kind, each learned
alone on one base, are points of it, and so is whatever is mixed of them.

Nothing is ever formed that is larger than a matrix of the model: principal components are found from the
inner products of the concepts, `(N, N)`, and every point is kept as a weight for each concept, `(N,)`.
"""
