"""`python -m benchmarks aggregate`: one server step over 1,000 adapters of 300 KB."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.harness import Results, interleaved

ADAPTERS, TENSORS, FLOATS = 1_000, 48, 1_600
"""48 tensors of 1,600 floats: 307,200 bytes an adapter."""


def run(results: Results) -> None:
    """Time fedsim's rule against a loop over dictionaries of tensors, as templates write it."""
    import torch

    from fedsim.adapters import sums
    from fedsim.adapters.adapter import Adapter, Layout, Tensor
    from fedsim.aggregators._base import Contribution, ServerModel
    from fedsim.aggregators.fedit import FedIT

    torch.set_num_threads(1)
    count = 50 if results.options.quick else ADAPTERS
    layout = Layout(tensors=tuple(Tensor(f"t{i}", (FLOATS,)) for i in range(TENSORS)))
    rng = np.random.default_rng(0)
    start = rng.standard_normal(layout.size, dtype=np.float32)
    start.flags.writeable = False
    ends = [start + rng.standard_normal(layout.size, dtype=np.float32) for _ in range(count)]
    weights = rng.integers(1, 100, count).astype(float)
    model = ServerModel(Adapter(layout, start))
    contributions = [
        Contribution(i, 0, start, end, weight, 0, 0, 8, 2.0)
        for i, (end, weight) in enumerate(zip(ends, weights.tolist(), strict=True))
    ]
    dictionaries = [
        {name: torch.from_numpy(array.copy()) for name, array in layout.arrays(end).items()} for end in ends
    ]
    rule, outcome = FedIT(), {}

    def fedsim() -> float:
        began = time.perf_counter()
        outcome["fedsim"] = rule.apply(None, model, contributions)[0].adapter.vector
        return time.perf_counter() - began

    def loop() -> float:
        began = time.perf_counter()
        outcome["loop"] = _averaged(dictionaries, weights / weights.sum())
        return time.perf_counter() - began

    runs = {"fedsim": fedsim, "dict_loop": loop}
    for one in runs.values():
        one()
    found = interleaved(runs, results.options.counted * 3, results.listen)
    for name, seconds in found.items():
        results.add(f"{name}_ms", [1e3 * s for s in seconds], "ms")
    results.ratio("dict_loop_over_us", found["dict_loop"], found["fedsim"])
    exact = np.average(np.array(ends, dtype=np.float64), axis=0, weights=weights)
    error = {name: float(np.abs(vector - exact).max()) for name, vector in outcome.items()}
    results.check(
        "fedsim's average is exact to a float32 rounding",
        ok=error["fedsim"] <= float(np.spacing(np.float32(np.abs(exact).max()))),
        seen=f"largest error {error['fedsim']:.1e}, of the loop {error['loop']:.1e}",
    )
    results.about = {
        "adapters": count,
        "bytes_each": 4 * layout.size,
        "tensors": TENSORS,
        "threads": sums.THREADS,
    }


def _averaged(dictionaries: list[dict[str, Any]], shares: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return the weighted mean, tensor by tensor."""
    import torch

    mean: dict[str, Any] = {}
    for tensors, share in zip(dictionaries, shares.tolist(), strict=True):
        for name, tensor in tensors.items():
            mean[name] = share * tensor if name not in mean else mean[name] + share * tensor
    flat: np.ndarray[Any, Any] = torch.cat(list(mean.values())).numpy()
    return flat
