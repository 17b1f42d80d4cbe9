"""What of the model is a client's own, and what it trains beside and after; uses rules, jobs and cost.

A kind is one small file with one `Personal` component; its hooks are pure functions of arrays and jobs:

    during a run   `private`, `offer`, `composed`, `keeps`   arrays that never travel (a split by layers)
                   `alongside`, `beside`, `charged`          a second training in each visit (two models a client)
    after it       `after`, `model`                          what a client trains last, and what it then uses

Whatever is trained beside and after never touches the shared model: with it and without it a run has
the same versions to the bit (a visit that takes longer may of course land later).
"""

from __future__ import annotations

from fedsim.personal._base import Home, Personal, Used, tuned, values, with_values

SEAMS = (Personal,)

__all__ = ["Home", "Personal", "Used", "tuned", "values", "with_values"]
