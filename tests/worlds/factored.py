"""Products B A of torch layers of every kind, matrix by matrix: dense arithmetic to check factored arithmetic with."""

from __future__ import annotations

import numpy as np

from fedsim.adapters.adapter import Adapter, Layout, Module
from fedsim.aggregators._base import Contribution, Invitation, ServerModel

RANK, SCALE = 3, 2.0
KINDS = Layout(
    modules=(
        Module("linear", RANK, (RANK, 6), (9, RANK), SCALE),  # torch.nn.Linear(6, 9)
        Module("conv1d", RANK, (RANK, 8), (5, RANK), SCALE),  # GPT-2's Conv1D(5, 8): its weight is (8, 5)
        Module("conv2d", RANK, (RANK, 2, 3, 3), (7, RANK, 1, 1), SCALE),  # torch.nn.Conv2d(2, 7, 3)
    )
)


def one_matrix(out, inputs, rank, scale=1.0):
    return Layout(modules=(Module("w", rank, (rank, inputs), (out, rank), scale),))


def random_vector(rng, layout=KINDS, rank=None):
    """A vector whose slots from `rank` on are zero."""
    drawn = rng.standard_normal(layout.size).astype(np.float32)
    return np.where(layout.slots(rank), drawn, np.float32(0))


def dense_matrices(vector, layout=KINDS, scale=None):
    """Every s B A as a dense (out, in kh kw), slot by slot: an implementation of its own."""
    arrays = layout.arrays(np.asarray(vector))
    found = []
    for m in layout.modules:
        a, b = arrays[f"{m.name}.lora_A"].astype(float), arrays[f"{m.name}.lora_B"].astype(float)
        slots = [np.multiply.outer(b[:, j].ravel(), a[j].ravel()) for j in range(m.rank)]
        found.append((m.scale if scale is None else scale) * sum(slots))
    return found


def changed(model):
    """What a model has learned in every module: its base's change plus s B A, dense."""
    own = dense_matrices(model.adapter.vector, model.adapter.layout)
    bases = [0.0] * len(own) if model.base is None else [b.astype(float) for _, b in model.base.matrices()]
    return [a + b for a, b in zip(own, bases, strict=True)]


def begun(rng, layout=KINDS):
    """A server's model as LoRA begins: A random, B = 0."""
    return ServerModel(Adapter(layout, np.where(layout.slots(None, "A"), random_vector(rng, layout), 0)))


def learned(rng, layout=KINDS):
    """A server's model whose B is not zero any more."""
    return ServerModel(Adapter(layout, random_vector(rng, layout)))


def ask(rank=RANK, *, client=0, scale=SCALE, last_seen=None):
    return Invitation(client, 0, rank, scale, last_seen)


def sent_back(client, start, end, *, weight=1.0, staleness=0, version=0, rank=RANK, scale=SCALE, base=None):
    return Contribution(
        client=client,
        visit=0,
        start=start,
        end=end,
        examples=weight,
        staleness=staleness,
        version=version,
        rank=rank,
        scale=scale,
        base=base,
    )


def close(found, expected, rtol=2e-6):
    """Assert that two lists of matrices agree, relative to the larger of their norms."""
    for x, y in zip(found, expected, strict=True):
        size = max(np.linalg.norm(x), np.linalg.norm(y), 1e-30)
        assert np.linalg.norm(x - y) <= rtol * size, f"{np.linalg.norm(x - y) / size:.2e} off"


def apart(found, expected):
    """The distance of two lists of matrices, relative to the second."""
    square = sum(np.sum((x - y) ** 2) for x, y in zip(found, expected, strict=True))
    return float(np.sqrt(square / sum(np.sum(y * y) for y in expected)))


def mean_of(matrices, weights):
    """The weighted mean of lists of matrices."""
    whole = sum(weights)
    return [sum(w * x for w, x in zip(weights, m, strict=True)) / whole for m in zip(*matrices, strict=True)]


def matrices(adapter):
    """Yield (module, A, B) of every module of an adapter, as views."""
    arrays = adapter.layout.arrays(adapter.vector)
    for m in adapter.layout.modules:
        yield m, arrays[f"{m.name}.lora_A"], arrays[f"{m.name}.lora_B"]
