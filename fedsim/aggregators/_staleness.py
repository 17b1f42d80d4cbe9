"""How much a late update counts: s(tau), with s(0) = 1 and s never rising.

Sources: FedAsync (Xie et al., arXiv 1903.03934, section 5: constant, polynomial, hinge); FedBuff
(Nguyen et al., AISTATS 2022) uses the polynomial with a = 1/2. `product` asks instead how far the model
has really moved meanwhile, and falls with that.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from fedsim.adapters.products import Point, relative_change
from fedsim.aggregators._base import Contribution, ServerModel
from fedsim.component import Config
from fedsim.config.fields import CountOrZero, NonNegative


class Constant(Config):
    """s = 1."""

    kind: Literal["constant"] = "constant"

    def __call__(self, staleness: int) -> float:
        """Return s(staleness)."""
        return 1.0


class Polynomial(Config):
    """s = (1 + tau)^-a.

    Attributes:
        a: exponent.
    """

    kind: Literal["polynomial"] = "polynomial"
    a: NonNegative = 0.5

    def __call__(self, staleness: int) -> float:
        """Return s(staleness).

        >>> Polynomial(a=0.5)(3)
        0.5
        """
        return float((1.0 + staleness) ** -self.a)


class Hinge(Config):
    """s = 1 up to tau = b, then 1 / (a (tau - b) + 1).

    Attributes:
        a: steepness beyond b.
        b: staleness up to which an update counts in full.
    """

    kind: Literal["hinge"] = "hinge"
    a: NonNegative = 10.0
    b: CountOrZero = 4

    def __call__(self, staleness: int) -> float:
        """Return s(staleness).

        >>> Hinge(a=10, b=4)(5)
        0.09090909090909091
        """
        return 1.0 if staleness <= self.b else 1.0 / (self.a * (staleness - self.b) + 1.0)


class Product(Config):
    """s = 1 / (1 + a d), d the relative change of the model since the client's snapshot, in product space.

    d = |X_t - X_v| / max(|X_t|, |X_v|), in [0, 2], where X is all that was learned: the base's change plus
    s B A (Frobenius norms, through Gram traces). Unlike a distance of factors it does not change when A
    and B are refactored, and unlike a count of versions it forgives those in which nothing happened.
    An update that is not stale has s = 1. With fewer slots or layers than the model's, both are cut to the client's.

    Attributes:
        a: weight of the relative change.
    """

    kind: Literal["product"] = "product"
    a: NonNegative = 1.0

    def of_change(self, change: float) -> float:
        """Return s(d).

        >>> Product(a=2).of_change(0.5)
        0.5
        """
        return 1.0 / (1.0 + self.a * change)


Staleness = Annotated[Constant | Polynomial | Hinge | Product, Field(discriminator="kind")]


def discount(staleness: Staleness, contribution: Contribution, model: ServerModel) -> float:
    """Return s of one contribution to the commit that follows `model`."""
    if not isinstance(staleness, Product):
        return staleness(contribution.staleness)
    if contribution.staleness == 0:
        return 1.0
    c = contribution
    upper = model.adapter.above(model.adapter.vector, c.depth)
    now = Point(upper, c.rank or None, base=model.base)
    then = Point(c.start, c.rank or None, c.scale, c.base)
    return staleness.of_change(relative_change(model.adapter.layout, now, then))
