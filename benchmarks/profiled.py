"""`python -m benchmarks profile`: where the time of a W1 client batch goes, and the limit that GEMMs set.

One thread, in this process, `torch.profiler` over batches of three clients: what a Ray worker gets of W1's ten.
"""

from __future__ import annotations

import time

from benchmarks.harness import Results, interleaved, say
from benchmarks.inprocess import Bench
from benchmarks.w1.world import World

K = 3
GROUPS = {
    "matrix products": "mm addmm bmm baddbmm linear",
    "attention": "scaled_dot_product",
    "activation": "gelu silu sigmoid tanh",
    "softmax and loss": "softmax log_softmax nll_loss log logsumexp gather",
    "normalisation": "layer_norm rms_norm group_norm",
    "optimiser": "fused_adamw fused_adam fused_sgd foreach",
    "copies and fills": "copy fill zero clone cat stack empty contiguous",
    "element-wise": "add sub mul div neg pow sqrt rsqrt exp addcmul addcdiv lerp sum mean where",
    "indexing": "embedding embedding_dense index index_select index_put",
}
"""Operators by what they are for, without their `_`, `native_`, `_backward` and `_data`."""


def run(results: Results) -> None:
    """Profile a batch, measure the GEMM rate of its shapes, and put both on one scale."""
    import torch

    world = World()
    bench = Bench(world, K, stock=False)
    bench.batched()
    found = interleaved({"batch": bench.batched}, results.options.counted, results.listen)
    plain_s = found["batch"]
    results.add("ms_per_update", [1e3 * s for s in plain_s], "ms")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], with_flops=True) as seen:
        bench.batched()
    own: dict[str, float] = {}
    for event in seen.key_averages():
        own[group(event.key)] = own.get(group(event.key), 0.0) + event.self_cpu_time_total
    total = sum(own.values())
    for name, microseconds in sorted(own.items(), key=lambda item: -item[1]):
        results.add(f"share.{name.replace(' ', '_')}", [microseconds / total], "share")
        say(f"  {name:<24} {microseconds / total:.1%}")
    rates = [rate for _ in range(results.options.counted) for rate in [gemm_flops_per_s(world)]]
    flops = gemm_flops(world)
    limits = [1e3 * flops / rate for rate in rates]
    results.add("gemm_gflop", [flops / 1e9], "GFLOP")
    results.add("gemm_gflop_per_s", [rate / 1e9 for rate in rates], "GFLOP/s")
    results.add("gemm_limit_ms", limits, "ms")
    results.add("of_gemm_limit", [b / (1e3 * a) for a, b in zip(plain_s, limits, strict=True)], "share")
    results.about = {"k": K, "threads": 1, "groups": GROUPS}


def group(operator: str) -> str:
    """Return the group of a profiler key.

    >>> group("aten::addmm"), group("aten::gelu_backward"), group("enumerate")
    ('matrix products', 'activation', 'rest')
    """
    name = operator.removeprefix("aten::").strip("_").removeprefix("native_")
    name = name.removesuffix("_data").removesuffix("_backward")
    for title, operators in GROUPS.items():
        if operator.startswith("aten::") and any(_same(name, known) for known in operators.split()):
            return title
    return "rest"


def _same(name: str, known: str) -> bool:
    """Some come in many variants: `_scaled_dot_product_flash_attention_for_cpu`, `_foreach_add`."""
    return name == known or (known in ("scaled_dot_product", "foreach") and name.startswith(known))


def products(world: World) -> list[tuple[int, int, int, int]]:
    """Return the matrix products (times, m, k, n) of one local step of one client, forward and backward.

    A frozen matrix needs the product forward and the gradient of its input, not of itself; the input of the
    first adapted matrix needs none. An adapter needs three products of each factor.
    """
    tokens, d, r, v = world.batch * world.sequence, world.width, world.r, world.vocab
    found = []
    for wide, out in ((d, 3 * d), (d, d), (4 * d, d)):
        spared = 1 if out == 3 * d else 0
        found.append((2 * world.layers - spared, tokens, wide, out))
        found.append((3 * world.layers - spared, tokens, wide, r))
        found.append((3 * world.layers, tokens, r, out))
    found.append((2 * world.layers, tokens, d, 4 * d))
    found.append((2, tokens, d, v))
    return found


def gemm_flops(world: World) -> float:
    """Return the FLOPs of all matrix products of one update, attention apart."""
    return world.steps * sum(2.0 * times * m * k * n for times, m, k, n in products(world))


def gemm_flops_per_s(world: World) -> float:
    """Return the rate at which this thread makes exactly these products, one by one."""
    import torch

    shapes = products(world)
    pairs = [(torch.randn(m, k), torch.randn(k, n)) for _, m, k, n in shapes]
    targets = [a @ b for a, b in pairs]  # also warms up
    began = time.perf_counter()
    for (times, *_), (a, b), target in zip(shapes, pairs, targets, strict=True):
        for _ in range(times):
            torch.mm(a, b, out=target)
    return gemm_flops(world) / world.steps / (time.perf_counter() - began)
