"""Changes that add a matrix to whatever is there, of too many ranks to be two factors."""

from __future__ import annotations

from torch import Tensor


class Summed:
    """Base of such changes. What they add is a term of a sum, so that taking it out leaves no rest."""

    def difference(self, name: str) -> Tensor:
        """What is added to a weight `(out, text_dim)`, float16."""
        raise NotImplementedError

    def added(self, name: str) -> None:
        """No factors; see `difference`."""
        return None

    def lay(self, name: str, on: Tensor) -> Tensor:
        return (on.float() + self.difference(name)).half()
