"""The smallest model, two numbers, and what a client made of it: rules by hand."""

from __future__ import annotations

import numpy as np

from fedsim.adapters.adapter import Adapter, Layout, Tensor
from fedsim.aggregators._base import Contribution, ServerModel

PAIR = Layout(tensors=(Tensor("x", (2,)),))


def model(values, layout=PAIR):
    return ServerModel(Adapter(layout, np.array(values, np.float32)))


def contribution(start, end, *, client=0, weight=1.0, staleness=0):
    return Contribution(
        client=client,
        visit=0,
        start=np.array(start, np.float32),
        end=np.array(end, np.float32),
        examples=weight,
        staleness=staleness,
        version=0,
        rank=0,
        scale=1.0,
    )
