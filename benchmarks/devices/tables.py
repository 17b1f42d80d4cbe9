"""Write `stacks.csv`, the tables of predicted beside measured, and this folder's README.md from them."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import hetero_profiles
from benchmarks.devices import memory
from benchmarks.devices.fit import (
    BANDWIDTH_SHARE,
    FEW_DEVICES,
    Errors,
    Parameters,
    fit,
    peak_of,
    spread,
)
from benchmarks.devices.measured import Point, points, read
from fedsim.devices.stacks.table import STACK_COLUMNS

Floats = NDArray[np.float64]

HERE = Path(__file__).parent
RESULTS = HERE / "results"
OTHERS = HERE / "others.csv"
LAUNCH_SIGMA = 0.5
"""Spread of a launch cost's logarithm between processors: assumed, one set of measurements tells each."""
SOFTWARE = {
    "pytorch-cuda": ("PyTorch, peft, 16 bit, flash attention", "linux windows"),
    "pytorch-cuda-4bit": ("PyTorch, peft, 4-bit weights (bitsandbytes nf4, GPTQ int4)", "linux windows"),
    "pytorch-cuda-fp32": ("PyTorch, float32, on Jetson Nano's generation", "linux"),
    "torchtune": ("torchtune, compiled, packed; doubtful: near the peak on two cards", "linux"),
    "mlx": ("MLX", "macos"),
    "llama.cpp": ("llama.cpp (QVAC Fabric), Vulkan and Metal, q8_0 weights", "linux windows macos"),
    "llama.cpp-phone": ("llama.cpp (QVAC Fabric), Vulkan and Metal on phones", "android ios"),
    "cpp": ("MobileFineTuner without BLAS, late April 2026: plain C++, one thread", "android"),
    "cpp-2026-04-08": ("the same of 8 April 2026, before its matrix product was rewritten: not for new work", "android"),
}  # fmt: skip
MEMORY = {
    "pytorch-cuda": "pytorch", "pytorch-cuda-4bit": "pytorch", "pytorch-cuda-fp32": "pytorch-float32", "torchtune": "torchtune",
    "mlx": "mlx", "llama.cpp": "llama.cpp", "llama.cpp-phone": "llama.cpp", "cpp": "cpp", "cpp-2026-04-08": "cpp",
}  # fmt: skip
"""Stack -> what it keeps in memory, a row of `memory_models.csv`."""
OLD_GFLOP_PER_S = {
    "jetson-nano": 46.0, "phone-mid-2021": 20.0, "tensor-g4-phone": 8.5, "snapdragon-8-elite-phone": 42.0,
    "iphone-16": 35.0, "apple-m3-pro": 115.0, "rtx-4090": 1000.0,
}  # fmt: skip
"""Medians of the rows of devices.csv for the devices that were measured."""


@dataclass(frozen=True)
class Fitted:
    """One stack: its points, the estimate, and the errors of the law and of a constant share of peak."""

    stack: str
    points: list[Point]
    parameters: Parameters
    errors: Errors
    constant: Errors


def fitted() -> list[Fitted]:
    """Return every stack that is fitted to."""
    by_stack: dict[str, list[Point]] = {}
    for point in points():
        by_stack.setdefault(point.stack, []).append(point)
    return [Fitted(stack, of, *fit(of), fit(of, launches=False)[1]) for stack, of in sorted(by_stack.items())]


def chips(stack: Fitted) -> int:
    """Return how many devices a stack was measured on."""
    return len({point.device for point in stack.points})


def stacks_csv(stacks: list[Fitted]) -> str:
    """Return the text of `stacks.csv`: what is fitted, then what single points tell."""
    known = [spread(s.errors) for s in stacks if chips(s) >= FEW_DEVICES]
    pooled = float(np.sqrt(np.mean(np.array(known) ** 2)))
    extra = ("memory", "points", "devices", "row_out_median", "row_out_max", "source")
    header = [*(column.name for column in STACK_COLUMNS), *extra]
    text = io.StringIO()
    text.write(
        "# source: fitted to measurements/*.csv by `python -m benchmarks.devices fit`; what rests on less says so\n"
    )
    text.write("# licence: Apache-2.0 (facts and own figures)\n")
    text.write(
        "# share_of_peak: of the column <peak>_gflop_per_s of a table of hardware, with many tokens a pass; launch_s: floor of a layer pass\n"
    )
    text.write(
        f"# share_sigma_ln: spread of ln(predicted / measured) with the device left out; never less than {pooled:.2f}, that of all "
        f"stacks that were measured on {FEW_DEVICES} chips or more, for one that was not\n"
    )
    text.write(
        f"# assumed: bandwidth_share, and launch_sigma_ln ({LAUNCH_SIGMA}) where there is a launch cost; expand_share 0: quantised "
        "weights are unpacked on the way into the product\n"
    )
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    for s in stacks:
        own = spread(s.errors)
        sigma = own if chips(s) >= FEW_DEVICES else max(pooled, 0.0 if np.isnan(own) else own)
        writer.writerow(_fitted_row(s, sigma))
    for row in read(OTHERS):
        launch_sigma = LAUNCH_SIGMA if float(row["launch_s"]) else 0
        assumed = {
            "share_sigma_ln": f"{pooled:.3g}",
            "launch_sigma_ln": launch_sigma,
            "bandwidth_share": BANDWIDTH_SHARE,
        }
        points_told = {"points": int(row["kind"] == "derived"), "devices": int(row["kind"] == "derived")}
        writer.writerow(row | assumed | points_told | {"row_out_median": "", "row_out_max": ""})
    return text.getvalue()


def _fitted_row(s: Fitted, sigma: float) -> dict[str, str | float]:
    tokens = [point.tokens for point in s.points]
    off = factors(s.errors.row_out)
    software, systems = SOFTWARE[s.stack]
    return {
        "stack": s.stack,
        "software": software,
        "peak": peak_of(s.stack),
        "os": systems,
        "share_of_peak": f"{s.parameters.share:.3g}",
        "share_sigma_ln": f"{sigma:.3g}",
        "launch_s": f"{s.parameters.launch_s:.3g}",
        "launch_sigma_ln": LAUNCH_SIGMA if s.parameters.launch_s else 0,
        "pass_overhead_s": 0,
        "bandwidth_share": BANDWIDTH_SHARE,
        "expand_share": f"{s.parameters.expand_share:.3g}",
        "least_tokens": min(tokens),
        "most_tokens": max(tokens),
        "kind": "fitted",
        "memory": MEMORY[s.stack],
        "points": len(s.points),
        "devices": chips(s),
        "row_out_median": f"{np.median(off):.3f}",
        "row_out_max": f"{off.max():.3f}",
        "source": "measurements/public.csv: " + "; ".join(sorted({p.set_up[0] for p in s.points})),
    }


def factors(errors: Floats) -> Floats:
    """Return by which factor predictions are off, 1 or more; without those that nothing is left to predict from."""
    known = errors[np.isfinite(errors)]
    return np.asarray(np.exp(np.abs(np.log(known))))


def old_table(stacks: list[Fitted]) -> Floats:
    """Return predicted over measured of the table of 2025, for the devices that it has."""
    return np.array([_old(point) for s in stacks for point in s.points if point.device in OLD_GFLOP_PER_S])


def _old(point: Point) -> float:
    return point.work.flops / (1e9 * OLD_GFLOP_PER_S[point.device]) / point.measured_s


def summary(stacks: list[Fitted]) -> list[tuple[str, int, float, float, float, float, float]]:
    """Return rows of the table of errors: what is left out, points, median, within 1.25, 1.5 and 3, most."""

    def joined(kind: str, which: str) -> Floats:
        errors = [s.errors if which == "law" else s.constant for s in stacks]
        parts = {"row": [e.row_out for e in errors], "set-up": [e.set_up_out for e in errors]}
        return factors(np.concatenate(parts.get(kind, [e.device_out for e in errors])))

    named = (
        ("the row", joined("row", "law")),
        ("the row; peak x constant", joined("row", "constant")),
        ("source and model", joined("set-up", "law")),
        ("source and model; peak x constant", joined("set-up", "constant")),
        ("the device", joined("device", "law")),
        ("the device; peak x constant", joined("device", "constant")),
        ("nothing: the table of 2025 as it is", factors(old_table(stacks))),
    )
    return [
        (
            name,
            len(off),
            float(np.median(off)),
            *(float(np.mean(off <= bound)) for bound in (1.25, 1.5, 3.0)),
            float(off.max()),
        )
        for name, off in named
    ]


def rows_csv(stacks: list[Fitted]) -> str:
    """Return every point with what was measured and what is predicted from the others."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ("device", "stack", "hardware", "model", "precision", "tokens_a_pass", "measured_s")
    writer.writerow((*head, "predicted_s", "row_out_s", "set_up_out_s", "device_out_s", "constant_row_out_s"))
    for s in stacks:
        for k, point in enumerate(s.points):
            e = s.errors
            each = (e.fitted[k], e.row_out[k], e.set_up_out[k], e.device_out[k], s.constant.row_out[k])
            writer.writerow(
                (
                    *(
                        point.device,
                        s.stack,
                        point.row["hardware"],
                        point.row["model"],
                        point.row["precision"],
                    ),
                    *(point.tokens, f"{point.measured_s:.4g}"),
                    *("" if np.isnan(error) else f"{error * point.measured_s:.4g}" for error in each),
                )
            )
    return text.getvalue()


def readme(stacks: list[Fitted]) -> str:
    """Return the tables of README.md."""
    lines = [
        "| left out | points | median | within 1.25 | within 1.5 | within 3 | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, n, median, *within, most in summary(stacks):
        shares = " | ".join(f"{share:.0%}" for share in within)
        lines.append(f"| {name} | {n} | {median:.2f} | {shares} | {most:.2f} |")
    lines += [
        "",
        "| stack | points | chips | share of peak | launch, ms | row out: median, most | device out: median, most |",
    ]
    lines.append("|---|---|---|---|---|---|---|")
    for s in stacks:
        row, device = factors(s.errors.row_out), factors(s.errors.device_out)
        other = f"{np.median(device):.2f}, {device.max():.2f}" if len(device) else "one set-up"
        launch = f"{1e3 * s.parameters.launch_s:.2g}" if s.parameters.launch_s else "not told"
        lines.append(
            f"| {s.stack} | {len(s.points)} | {chips(s)} | {s.parameters.share:.3g} | {launch} "
            f"| {np.median(row):.2f}, {row.max():.2f} | {other} |"
        )
    return "\n".join(lines) + "\n"


BEGIN, END = "<!-- tables: written by `python -m benchmarks.devices fit` -->\n", "<!-- end of tables -->"


def write(folder: Path | None = None) -> None:
    """Write `stacks.csv` of hetero_profiles, `results/points.csv` and the tables of README.md."""
    stacks = fitted()
    target = (
        hetero_profiles.locate("devices.csv").with_name("stacks.csv")
        if folder is None
        else folder / "stacks.csv"
    )
    target.write_text(stacks_csv(stacks), encoding="utf-8")
    results = RESULTS if folder is None else folder
    (results / "points.csv").write_text(rows_csv(stacks), encoding="utf-8")
    if folder is None:
        page = HERE / "README.md"
        before, _, rest = page.read_text(encoding="utf-8").partition(BEGIN)
        after = rest.partition(END)[2]
        memory.write()
        page.write_text(f"{before}{BEGIN}{readme(stacks)}{END}{after}", encoding="utf-8")
