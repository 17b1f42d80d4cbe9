"""Uplink of federated LoRA against full-model FedAvg, by rank and targets: a formula, no run is needed.

    python experiments/fedgen_edge/uplink.py    writes uplink.csv, the tables of README.md and uplink.png

A map of m inputs and n outputs has an adapter of r (m + n) numbers. With S the sum of m + n over the adapted maps and N the
model's numbers, T rounds of K updates in float32 take 4 T K r S bytes up, and full-model FedAvg 4 T K N: T and K cancel in
the share 1 - r S / N that is saved.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from fedsim.cost.architecture import PRESETS, lora_params

HERE = Path(__file__).parent
ROWS, PAGE, FIGURE = (HERE / name for name in ("uplink.csv", "README.md", "uplink.png"))
MODELS = {"smollm2-135m": "SmolLM2-135M", "gpt2": "GPT-2"}
TARGETS: dict[str, dict[str, str | tuple[str, ...]]] = {
    "smollm2-135m": {"q and v": ("q_proj", "v_proj"), "attention": "attention", "all linear": "all-linear"},
    "gpt2": {"c_attn": ("c_attn",), "attention": "attention", "all linear": "all-linear"},
}
RANKS = (1, 2, 4, 8, 16, 32, 64)
ROUNDS, COHORT, FLOAT_BYTES = 500, 10, 4
CLAIM = 0.99


@dataclass(frozen=True)
class Uplink:
    """What a choice of targets and rank sends; `full_bytes` is what full-model FedAvg sends in as many updates."""

    model: str
    targets: str
    r: int
    params: int
    full_params: int

    @property
    def bytes(self) -> int:
        """Of all rounds."""
        return ROUNDS * COHORT * FLOAT_BYTES * self.params

    @property
    def full_bytes(self) -> int:
        """Of all rounds, if the whole model were sent."""
        return ROUNDS * COHORT * FLOAT_BYTES * self.full_params

    @property
    def saved(self) -> float:
        """Share of the bytes that is saved."""
        return 1.0 - self.params / self.full_params


def uplinks() -> list[Uplink]:
    """Return every model, choice of targets and rank."""
    return [
        Uplink(model, name, r, lora_params(PRESETS[model].targeted(targets), r), PRESETS[model].params)
        for model in MODELS
        for name, targets in TARGETS[model].items()
        for r in RANKS
    ]


def largest_rank(model: str, targets: str, bits: int = 32) -> int:
    """Return the largest rank that saves more than 99 % of what full-model FedAvg sends in float32; 0: none does.

    Args:
        model: a name of `TARGETS`.
        targets: a name of `TARGETS[model]`.
        bits: of a number that goes up.
    """
    sums = lora_params(PRESETS[model].targeted(TARGETS[model][targets]), 1)
    return math.ceil((1.0 - CLAIM) * PRESETS[model].params * 32 / bits / sums - 1e-9) - 1


def tables() -> Iterator[str]:
    """Yield the lines of README.md's tables."""
    every = uplinks()
    for model, name in MODELS.items():
        full = next(row for row in every if row.model == model)
        yield f"{name}, {full.full_params:,} numbers; full-model FedAvg sends {full.full_bytes / 1e12:.3g} TB:"
        yield ""
        yield f"| rank | {' | '.join(TARGETS[model])} |"
        yield f"|---|{'---|' * len(TARGETS[model])}"
        for r in RANKS:
            rows = [row for row in every if row.model == model and row.r == r]
            yield f"| {r} | {' | '.join(f'{row.bytes / 1e9:.3g} GB, {100 * row.saved:.2f} %' for row in rows)} |"
        for bits in (32, 16, 8):
            most = [f"**{largest_rank(model, targets, bits)}**" for targets in TARGETS[model]]
            yield f"| largest with more than 99 %, {bits} bits a number | {' | '.join(most)} |"
        yield ""


def draw() -> None:
    """Draw the share that goes up against rank."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    ax = figure.subplots()
    for at, model in enumerate(MODELS):
        for targets, line in zip(TARGETS[model], ("-", "--", ":"), strict=True):
            rows = [row for row in uplinks() if (row.model, row.targets) == (model, targets)]
            shares = [100 * (1 - row.saved) for row in rows]
            ax.plot(
                [row.r for row in rows], shares, line, color=f"C{at}", label=f"{MODELS[model]}, {targets}"
            )
    ax.axhline(100 * (1 - CLAIM), color="0.4", linewidth=0.8)
    ax.set_xscale("log", base=2)
    ax.set_yscale("log")
    ax.set_xlabel("rank")
    ax.set_ylabel("uplink, % of full-model FedAvg")
    ax.legend(fontsize=8)
    figure.savefig(FIGURE, dpi=100)


BEGIN, END = (
    "<!-- tables: written by `python experiments/fedgen_edge/uplink.py` -->\n",
    "<!-- end of tables -->",
)


def main() -> None:
    """Write everything anew."""
    with ROWS.open("w", encoding="utf-8", newline="") as file:
        file.write(
            f"# written by experiments/fedgen_edge/uplink.py: {ROUNDS} rounds of {COHORT} updates, float32\n"
        )
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["model", "targets", "r", "params", "full_params", "bytes", "full_bytes", "saved"])
        for row in uplinks():
            numbers = (row.r, row.params, row.full_params, row.bytes, row.full_bytes)
            writer.writerow([row.model, row.targets, *numbers, f"{row.saved:.6f}"])
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    PAGE.write_text(
        f"{before}{BEGIN}" + "\n".join(tables()) + f"{END}{rest.partition(END)[2]}", encoding="utf-8"
    )
    draw()


if __name__ == "__main__":
    main()
