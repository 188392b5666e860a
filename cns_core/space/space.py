"""Principal components of concepts, from their inner products alone.

A concept is a point x_i: what it adds to the weights, and the vectors of its token. Both are centred on their
means and divided by their total variance over all concepts, so that neither counts more for being written in
larger numbers; a share s in 0..1 then weighs tokens against weights:

    G = (1 - s) G_weights / tr G_weights + s G_tokens / tr G_tokens,    G e_k = l_k e_k

Component k is `sum_i e_k[i] x_i / sqrt(l_k)`, a mixture of the concepts, along which they have the variance
`l_k / (N - 1)`. Every point of the space is therefore known by a weight for each concept, a of length N.

The paper (2406.09413) takes the factors of LoRAs of rank 1 end to end, 65,000 of them, with no token. Factors
of one product can be written in many ways, so we take the products; tokens carry half of a concept here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .members import Members
from .mixing import inner_products

_NOTHING = 1e-9  # of the largest variance: what rounding leaves of a component that is not there


@dataclass(frozen=True, eq=False)
class ConceptSpace:
    """variances: l_k, falling, which sum to 1, `(K,)`, K at most N - 1; axes: e_k, `(N, K)`; float64."""

    members: Members
    variances: Tensor
    axes: Tensor

    @classmethod
    def of(
        cls, members: Members, token_share: float, on_progress: Callable[[int, int], None]
    ) -> ConceptSpace:
        """ValueError where the concepts do not differ."""
        grams = {
            "weights": _centred(inner_products([c.change for c in members.concepts], on_progress)),
            "tokens": _centred(_token_products(members)),
        }
        shares = {"weights": 1 - token_share, "tokens": token_share}
        # Where concepts are alike in one of the two, such as those learned by their token alone, the other
        # tells all.
        counted = {what: shares[what] for what, gram in grams.items() if shares[what] and gram.any()}
        if not counted:
            raise ValueError(
                f"The {len(members)} concepts are alike in what a token share of {token_share:g} looks at. "
                "Choose another one, or learn different concepts."
            )
        gram = sum(
            (share * grams[what] / grams[what].trace() for what, share in counted.items()),
            start=torch.zeros_like(grams["weights"]),
        ) / sum(counted.values())
        variances, axes = torch.linalg.eigh(gram)
        variances, axes = variances.flip(0), axes.flip(1)
        count = int((variances > _NOTHING * variances[0]).sum())
        axes = axes[:, :count]
        # Eigenvectors have no sign of their own; a seed must mean the same concept on every machine.
        largest = axes.abs().argmax(dim=0)
        axes = axes * axes[largest, torch.arange(count)].sign()
        return cls(members, variances[:count], axes)

    def used(self, components: int) -> int:
        """How many count. components: at most; 0 stands for all."""
        there = len(self.variances)
        return min(components or there, there)

    def share(self, components: int) -> float:
        """How much of all variance that many hold, 0 to 1."""
        return float(self.variances[: self.used(components)].sum() / self.variances.sum())

    def mean(self) -> Tensor:
        """The weights `(N,)` of the mean concept."""
        return torch.full((len(self.members),), 1 / len(self.members), dtype=torch.float64)

    def drawn(self, seed: int, distance: float, components: int) -> Tensor:
        """The weights `(N,)` of a new concept: `mean + distance * sum_k z_k sigma_k u_k`, z_k from a normal
        distribution. They sum to 1.
        """
        count = self.used(components)
        generator = torch.Generator().manual_seed(seed)
        z = torch.randn(count, generator=generator, dtype=torch.float64)
        scale = distance / (len(self.members) - 1) ** 0.5
        weights: Tensor = self.mean() + scale * self.axes[:, :count] @ z
        return weights

    def size(self, step: Tensor) -> float:
        """How long a step `(N,)`, whose weights sum to 0, is: 1 is as far as the concepts lie from their
        mean, root mean square.
        """
        along = self.variances.sqrt() * (self.axes.T @ step)
        return float(along.norm() / (self.variances.sum() / len(self.members)).sqrt())

    def nearest(self, weights: Tensor) -> list[int]:
        """The concepts, by how near a point `(N,)` they lie."""
        points = self.axes * self.variances.sqrt()
        return [int(place) for place in (points - weights @ points).norm(dim=1).argsort()]

    def direction(self, toward: Sequence[int], away: Sequence[int], components: int) -> Tensor:
        """The weights `(N,)` of the way from the mean of some concepts to the mean of others, as far as the
        components go. They sum to 0.
        """
        axes = self.axes[:, : self.used(components)]
        weights: Tensor = axes @ (axes.T @ self._between(toward, away))
        return weights

    def told_apart(self, toward: Sequence[int], away: Sequence[int], components: int) -> float:
        """How well the space tells which of both lists a concept belongs to, 0 to 1, half by chance: each in
        turn is left out of the means, and is right where it lies nearer to its own list's. The mean of both
        lists' shares, so that the longer one counts no more.
        """
        count = self.used(components)
        points = self.axes[:, :count] * self.variances[:count].sqrt()
        shares = []
        for own, other in ((toward, away), (away, toward)):
            far = points[list(other)].mean(dim=0)
            right = 0
            for place in own:
                near = points[[p for p in own if p != place]].mean(dim=0)
                right += bool((points[place] - near).norm() < (points[place] - far).norm())
            shares.append(right / len(own))
        return sum(shares) / 2

    def _between(self, toward: Sequence[int], away: Sequence[int]) -> Tensor:
        weights = torch.zeros(len(self.members), dtype=torch.float64)
        weights[list(toward)] += 1 / len(toward)
        weights[list(away)] -= 1 / len(away)
        return weights


def _token_products(members: Members) -> Tensor:
    """Inner products `(N, N)` of all encoders' vectors."""
    rows = [
        torch.cat(
            [concept.token_vectors[encoder].double().flatten() for encoder in sorted(concept.token_vectors)]
        )
        for concept in members.concepts
    ]
    return torch.stack(rows) @ torch.stack(rows).T


def _centred(gram: Tensor) -> Tensor:
    """Inner products of points after their mean was taken from them; 0 where only rounding is left."""
    rows = gram.mean(dim=0, keepdim=True)
    centred = gram - rows - rows.T + rows.mean()
    alike = centred.trace() <= _NOTHING * gram.trace()
    return torch.zeros_like(centred) if alike else centred
