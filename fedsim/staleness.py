"""How much a late update counts: s(tau), with s(0) = 1 and s never rising.

Sources: FedAsync (Xie et al., arXiv 1903.03934, section 5: constant, polynomial, hinge); FedBuff
(Nguyen et al., AISTATS 2022) uses the polynomial with a = 1/2.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedsim.component import Config


class Constant(Config):
    """s = 1."""

    kind: Literal["constant"] = "constant"

    def __call__(self, staleness: int) -> float:
        """Return s(staleness)."""
        return 1.0


class Polynomial(Config):
    """s = (1 + tau)^-a."""

    kind: Literal["polynomial"] = "polynomial"
    a: Annotated[float, Field(ge=0)] = 0.5

    def __call__(self, staleness: int) -> float:
        """Return s(staleness).

        >>> Polynomial(a=0.5)(3)
        0.5
        """
        return float((1.0 + staleness) ** -self.a)


class Hinge(Config):
    """s = 1 up to tau = b, then 1 / (a (tau - b) + 1)."""

    kind: Literal["hinge"] = "hinge"
    a: Annotated[float, Field(ge=0)] = 10.0
    b: Annotated[int, Field(ge=0)] = 4

    def __call__(self, staleness: int) -> float:
        """Return s(staleness).

        >>> Hinge(a=10, b=4)(5)
        0.09090909090909091
        """
        return 1.0 if staleness <= self.b else 1.0 / (self.a * (staleness - self.b) + 1.0)


Staleness = Annotated[Constant | Polynomial | Hinge, Field(discriminator="kind")]
