"""Memory that programs were seen to take, beside what fedsim charges for them; and which phones can hold what."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.devices.measured import MODELS, read, rows, shape_of
from fedsim.config.devices import ComputeConfig
from fedsim.cost.architecture import PRESETS
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.declared import charged
from fedsim.cost.formulas import resting_memory_bytes, train_memory_bytes
from fedsim.cost.memory.model import MemoryModel
from fedsim.cost.shape import ModelShape
from fedsim.devices.population import Population, draw_devices, with_software
from fedsim.devices.stacks.memory_limits import App
from fedsim.devices.stacks.memory_models import memory_models

PAGE = Path(__file__).parent / "memory.md"
COMPARED = ("peak", "allocated", "footprint", "between steps")
"""Figures that a prediction can be held against; `host only` leaves out what a GPU holds of the same memory."""
PEOPLE = 20_000
BITS = {16: 2.0, 8: 1.0, 4: 0.5}


@dataclass(frozen=True)
class Seen:
    """A program that was seen to take memory.

    Attributes:
        row: the cells of the table of measurements.
        tokens: of a pass.
        shape: the model as it trained.
        measured_bytes, predicted_bytes: of memory; what was measured is a peak, or what is left between two steps.
    """

    row: dict[str, str]
    tokens: int
    shape: ModelShape
    measured_bytes: float
    predicted_bytes: float

    @property
    def factor(self) -> float:
        """By which factor the prediction is off, 1 or more."""
        ratio = self.predicted_bytes / self.measured_bytes
        return max(ratio, 1 / ratio)


def seen() -> list[Seen]:
    """Return every row whose model, tokens and program are known, of weights that adapters train beside."""
    known = {row["model"] for row in read(MODELS)}
    return [
        _seen(row)
        for row in rows()
        if row["memory_kind"] in COMPARED
        and row["model"] in known
        and row["all_weights"] == "no"
        and (row["memory_tokens"] or (row["batch"] and row["sequence"]) or row["tokens_a_pass"])
    ]


def _seen(row: dict[str, str]) -> Seen:
    size = int(row["batch"] or 1) * int(row["sequence"] or 0) or int(row["tokens_a_pass"] or 0)
    tokens = int(row["memory_tokens"] or size)
    layers = row["trained_layers"] or {r["model"]: r["layers"] for r in read(MODELS)}[row["model"]]
    shape = shape_of(row | {"trained_layers": layers, "sequence": str(tokens), "batch": "1"})
    model = memory_models()[row["memory_model"]]
    of = resting_memory_bytes if row["memory_kind"] == "between steps" else train_memory_bytes
    return Seen(row, tokens, shape, float(row["memory_bytes"]), of(shape, model))


def factors(points: list[Seen]) -> NDArray[np.float64]:
    """Return by which factor each prediction is off."""
    return np.array([point.factor for point in points])


def programs(points: list[Seen]) -> dict[str, list[Seen]]:
    """Return the rows of each memory model."""
    by_model: dict[str, list[Seen]] = {}
    for point in points:
        by_model.setdefault(point.row["memory_model"], []).append(point)
    return by_model


def compared() -> Iterator[str]:
    """Yield the lines of the tables of predicted beside measured."""
    points = seen()
    yield "| program | figures | what they are of | median | within 1.5 | most |"
    yield "|---|---|---|---|---|---|"
    for name, of in [*programs(points).items(), ("all", points)]:
        off = factors(of)
        kinds = ", ".join(sorted({point.row["memory_kind"] for point in of})) if name != "all" else ""
        yield (
            f"| {name} | {len(of)} | {kinds} | {np.median(off):.2f} | {np.mean(off <= 1.5):.0%} | {off.max():.2f} |"
        )
    yield ""
    yield "| program | model | tokens | what | measured, GB | charged, GB | ratio | read |"
    yield "|---|---|---|---|---|---|---|---|"
    told: set[tuple[str, ...]] = set()
    for point in points:
        row = point.row
        key = (row["memory_model"], row["model"], str(point.tokens), row["weight_bytes"], row["software"])
        if row["memory_model"] in PHONES and key not in told:  # five phones of one kind, two tasks: the first
            told.add(key)
            ratio = point.predicted_bytes / point.measured_bytes
            cells = (f"{n / 1e9:.3g}" for n in (point.measured_bytes, point.predicted_bytes))
            yield (
                f"| {row['memory_model']} | {row['model']} | {point.tokens} | {row['memory_kind']} "
                f"| {' | '.join(cells)} | {ratio:.2f} | {row['quality']} |"
            )


PHONES = ("cpp", "cpp-sharded", "mebp", "mesp")
"""Programs of phones, whose rows are shown one by one."""


# who can hold what ------------------------------------------------------------------------------


def holding() -> Iterator[str]:
    """Yield the lines of the table of phones that can hold each preset model."""
    yield "| model | bits | plain, GB | Android | iOS | on the screen: Android | iOS | mapped, GB | Android | iOS |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    asleep, awake = people("background"), people("foreground")
    mapped = memory_models()["mesp"]
    for name in PRESETS:
        for bits, weight_bytes in BITS.items():
            charge = ChargeAs(preset=name, weight_bytes=weight_bytes, checkpoint=True, sequence=256)
            shape = charged(charge, full=False)
            cells = [
                f"{train_memory_bytes(shape) / 1e9:.2f}",
                *(f"{share:.0%}" for drawn in (asleep, awake) for share in able(drawn, shape)),
                f"{train_memory_bytes(shape, mapped) / 1e9:.2f}",
                *(f"{share:.0%}" for share in able(asleep, shape, mapped)),
            ]
            yield f"| {name} | {bits} | {' | '.join(cells)} |"


def people(app: App) -> Population:
    """Return the clients of `mixed_edge_2026` with their apps in the background or on the screen."""
    drawn = draw_devices("mixed_edge_2026", PEOPLE, seed=0)
    return with_software(drawn, ComputeConfig(app=app), seed=0)


def able(drawn: Population, shape: ModelShape, model: MemoryModel | None = None) -> tuple[float, float]:
    """Return the shares of Android phones and of iPhones that can hold a training, by their own programs or by one for all."""
    rooms, place = drawn.rooms
    fits = np.array([train_memory_bytes(shape, model or own) <= usable for usable, own in rooms])[place]
    phone = np.array([tier.startswith("phone") for tier in drawn.tier])
    iphone = np.array([device.startswith("iphone") for device in drawn.device])
    return float(np.mean(fits[phone & ~iphone])), float(np.mean(fits[phone & iphone]))


BEGIN, END = "<!-- tables: written by `python -m benchmarks.devices fit` -->\n", "<!-- end of tables -->"


def text() -> str:
    """Return the tables of memory.md."""
    return "\n".join([*compared(), "", *holding()]) + "\n"


def write() -> None:
    """Write the tables of memory.md anew."""
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{text()}{END}{rest.partition(END)[2]}", encoding="utf-8")
