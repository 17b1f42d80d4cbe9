"""The public measurements that the stacks are fitted to, as the work that fedsim would charge for them."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import hetero_profiles
from fedsim.cost.architecture import Architecture, lora_params
from fedsim.cost.formulas import expanded_bytes, layer_passes, moved_bytes, train_flops
from fedsim.cost.shape import ModelShape, above_share
from fedsim.cost.work import Work
from fedsim.devices.stacks.table import PEAKS

MODELS = Path(__file__).parent / "models.csv"
NAMES = {
    "q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "o_proj", "gate": "gate_proj", "up": "up_proj", "down": "down_proj"
}  # fmt: skip
RANK = 8
"""Rank where a source does not say one: adapters are a hundredth of the work."""


@dataclass(frozen=True)
class Point:
    """A measured pass.

    Attributes:
        row: the cells of the table.
        device, hardware, stack: names; `hardware` is as printed, without the number of the unit.
        set_up: repository and model: rows of one table of one source.
        work: of one pass, as fedsim charges it.
        tokens: of one pass.
        peaks, bandwidth: of the device [FLOP/s by unit, bytes/s].
        measured_s: of one pass.
    """

    row: dict[str, str]
    device: str
    hardware: str
    stack: str
    set_up: tuple[str, str]
    work: Work
    tokens: int
    peaks: dict[str, float]
    bandwidth: float
    measured_s: float


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV with comment lines."""
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def rows() -> list[dict[str, str]]:
    """Return all rows of all tables of measurements."""
    tables = (name for name in hetero_profiles.names() if name.startswith("measurements/"))
    return [row for name in tables for row in read(hetero_profiles.locate(name))]


def points() -> list[Point]:
    """Return the rows that are fitted to."""
    devices = {row["device"]: row for row in read(hetero_profiles.locate("devices_2026.csv"))}
    return [_point(row, devices[row["device"]]) for row in rows() if row["fit"] == "yes"]


def _point(row: dict[str, str], device: dict[str, str]) -> Point:
    shape = shape_of(row)
    tokens = int(row["tokens_a_pass"])
    peaks = {
        peak: 1e9 * float(device[f"{peak}_gflop_per_s"]) for peak in PEAKS if device[f"{peak}_gflop_per_s"]
    }
    return Point(
        row=row,
        device=row["device"],
        hardware=row["hardware"].split(" unit ")[0],
        stack=row["stack"],
        set_up=(row["url"].split("@")[0].split(" ")[0], row["model"]),
        work=pass_of(shape, tokens),
        tokens=tokens,
        peaks=peaks,
        bandwidth=1e9 * float(device["memory_bandwidth_gb_per_s"]),
        measured_s=float(row["s_per_pass"]),
    )


def pass_of(shape: ModelShape, tokens: int) -> Work:
    """Return the work of one forward and backward pass."""
    return Work(
        down_bytes=0,
        up_bytes=0,
        flops=train_flops(shape, tokens),
        memory_bytes=0.0,
        tokens=tokens,
        serialized_down_bytes=0,
        serialized_up_bytes=0,
        moved_bytes=moved_bytes(shape, 1, 0),
        layer_passes=layer_passes(shape),
        expanded_bytes=expanded_bytes(shape),
    )


def shape_of(row: dict[str, str]) -> ModelShape:
    """Return the model of a row as it was trained there."""
    arch, declared = _models()[row["model"]]
    sequence = int(row["sequence"] or min(int(row["tokens_a_pass"]), 177))
    trained = round(float(row["trained_layers"]))
    lowest = arch.layers - trained
    matmul = declared or arch.matmul_params
    adapters = lora_params(arch.targeted(_targets(row["targets"])), int(float(row["rank"] or RANK)))
    full = row["all_weights"] == "yes"
    return ModelShape(
        name=row["model"],
        layers=arch.layers,
        width=arch.width,
        vocab=arch.vocab,
        params=declared or arch.params,
        matmul_params=matmul,
        adapter_params=arch.params if full else adapters * trained // arch.layers,
        sequence=sequence,
        batch=int(row["batch"] or 1),
        phi=above_share(lowest, arch.layers, matmul, arch.embedding_params),
        full=full,
        weight_bytes=float(row["weight_bytes"]),
        checkpoint=row["checkpointing"] == "yes",
        lowest=0 if full else lowest,
    )


def _targets(text: str) -> tuple[str, ...]:
    names = tuple(NAMES[word] for word in text.split() if word in NAMES)
    return names if names and len(names) == len(text.split()) else ("all-linear",)


@cache
def _models() -> dict[str, tuple[Architecture, int]]:
    models = {}
    for row in read(MODELS):
        numbers = ("layers", "width", "ffn", "heads", "kv_heads", "head_dim", "vocab")
        layers, width, ffn, heads, kv_heads, head_dim, vocab = (int(row[name]) for name in numbers)
        family = next(f for f in ("llama", "qwen2", "gemma3", "gpt2") if f == row["family"])
        arch = Architecture(
            family, layers, width, ffn, heads, kv_heads, head_dim, vocab, tied=row["tied"] == "yes"
        )
        models[row["model"]] = (arch, int(row["matmul_params"] or 0))
    return models
