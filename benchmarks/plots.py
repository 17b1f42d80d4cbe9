"""The plots in `plots/`, made from `results/*.json`: how the cost of an update grows."""

from __future__ import annotations

from typing import Any

from benchmarks.harness import HERE, stored

FOLDER = HERE / "plots"


def write() -> list[str]:
    """Write every plot whose results are there; returns their names."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "fedsim"  # equal results, equal files
    made = []
    if (found := stored("trivial")) is not None:
        names = found["about"]["said"]
        lines = {words: _points(found, "trivial", f"{name}_") for name, words in names.items()}
        made.append(_plot("clients", lines, "clients a round", "ms per trivial update"))
    if (found := stored("growth")) is not None:
        per = f"ms per update of {found['about']['steps']} steps"
        for curve, label in (("rank", "LoRA rank"), ("width", "hidden size")):
            lines = {
                words: _points(found, f"growth.{curve}.ms", f"{who}.")
                for who, words in (("fedsim", f"fedsim, K = {found['about']['k']}"), ("stock", "stock PEFT"))
            }
            made.append(_plot(curve, lines, f"{label} ({found['about'][curve]})", per))
        lines = {
            found["about"][curve]: _points(found, f"growth.{curve}.ms", "fedsim.")
            for curve in ("k_w1", "k_small")
        }
        made.append(_plot("k", lines, "clients in a batch, K", per))
    if (found := stored("engine")) is not None:
        for quantity, name, label in (
            ("us_per_visit", "engine_time", "CPU microseconds per visit, all but the plan"),
            ("mib", "engine_memory", "most memory of the process [MiB]"),
        ):
            lines = {
                world: _points(found, f"engine.{quantity}", f"{world}.") for world in found["about"]["worlds"]
            }
            made.append(_plot(name, lines, "clients, one in a hundred at work", label))
    return made


def _points(found: dict[str, Any], stem: str, prefix: str) -> dict[int, dict[str, Any]]:
    """Return x -> summary of the results `STEM.PREFIXx`."""
    start = f"{stem}.{prefix}"
    points = {
        int(k.removeprefix(start)): v
        for k, v in found["values"].items()
        if k.startswith(start) and k.removeprefix(start).isdigit()
    }
    return dict(sorted(points.items()))


def _plot(name: str, lines: dict[str, dict[int, dict[str, Any]]], x: str, y: str) -> str:
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure, axes = plt.subplots(figsize=(5.2, 3.4), layout="constrained")
    for words, points in lines.items():
        if not points:
            continue
        xs = list(points)
        middle = [v["median"] for v in points.values()]
        below = [v["median"] - v["min"] for v in points.values()]
        above = [v["max"] - v["median"] for v in points.values()]
        axes.errorbar(xs, middle, yerr=(below, above), marker="o", markersize=4, capsize=2, label=words)
    axes.set(xscale="log", yscale="log", xlabel=x, ylabel=y)
    ticks = sorted({tick for points in lines.values() for tick in points})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.grid(visible=True, alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    FOLDER.mkdir(exist_ok=True)
    figure.savefig(FOLDER / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)
    return name
