"""Which software each client runs, and how fast and how large it may train with it.

`compute.stack` names it, for all or by class; else each device runs what its row says. `compute.uncertainty` draws what is not
known of the stacks, within the spread of what was measured, by address.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from fedsim.arrays import Floats, Ints, Names
from fedsim.config.devices import ComputeConfig
from fedsim.cost.memory.model import MemoryModel
from fedsim.devices.availability import BLOCK
from fedsim.devices.stacks.hardware import PEAK_COLUMNS, Hardware, OwnedHardware
from fedsim.devices.stacks.law import StepLaw
from fedsim.devices.stacks.memory_limits import App, usable_share
from fedsim.devices.stacks.memory_models import memory_models_sha256
from fedsim.devices.stacks.table import Stack, StackTable, beside, read_stacks, shares_of
from fedsim.elementary import exp
from fedsim.errors import ProfileError, message, nearest
from fedsim.rng import stream


@dataclass(frozen=True)
class Laws:
    """The law of every client's steps, (clients,) each: the fields of `StepLaw`, and the spread of ln(time) that is not known of it.

    `pair` is the number of each client's device with its stack, of those that the population may have; `memory` the place of its
    memory model among `memory_models`. `rows` has the stacks by name.
    """

    stack: Names
    launch_s: Floats
    pass_overhead_s: Floats
    moved_bytes_per_s: Floats
    expanded_bytes_per_s: Floats
    sigma_ln: Floats
    pair: Ints
    memory: Ints
    memory_models: tuple[MemoryModel, ...]
    rows: Mapping[str, Stack]

    def of(self, client: int) -> StepLaw:
        """Return one client's."""
        return StepLaw(
            str(self.stack[client]),
            float(self.launch_s[client]),
            float(self.pass_overhead_s[client]),
            float(self.moved_bytes_per_s[client]),
            float(self.expanded_bytes_per_s[client]),
            self.memory_models[int(self.memory[client])],
        )


@dataclass(frozen=True)
class Equipped:
    """What software makes of the devices of a population, (clients,) each.

    Attributes:
        flops_per_s: share of peak x peak.
        usable_memory_bytes: what training may take.
        memory_bytes_per_s: bandwidth of the memory that trains: of the card, or of the RAM.
        laws: of their steps.
        sources: table and stacks, for the record of a run.
    """

    flops_per_s: Floats
    usable_memory_bytes: Floats
    memory_bytes_per_s: Floats
    laws: Laws
    sources: dict[str, str]


@dataclass(frozen=True)
class _Pair:
    """A row of the table of hardware with a stack, and the share of that row's owners who run it."""

    row: int
    stack: Stack
    share: float


def equipped(owned: OwnedHardware, compute: ComputeConfig, seed: int) -> Equipped:
    """Return what software makes of a population's devices.

    Args:
        owned: the hardware.
        compute: which stack, and how uncertain it is.
        seed: address of the draws.

    Raises:
        ProfileError: no such stack, or a device that cannot run it.
    """
    table, stacks = owned.table, read_stacks()
    if compute.stacks is not None:
        stacks = beside(stacks, read_stacks(compute.stacks), str(compute.stacks))
    rows = np.unique(owned.row).tolist()
    pairs = [pair for row in rows for pair in _pairs(table, row, compute, stacks)]
    chosen = _chosen(pairs, owned.row, seed)
    figures = np.array([_figures(table, pair, compute.app) for pair in pairs])[chosen]
    flops_per_s, launch_s, overhead_s, bandwidth, moved, expanded, usable, sigma, launch_sigma = figures.T
    names = np.array([pair.stack.stack for pair in pairs], dtype=object)[chosen]
    used = {pair.stack.stack: pair.stack for pair in pairs}
    if compute.uncertainty != "none":
        z = _normals([pair.stack.stack for pair in pairs], chosen, compute, seed)
        flops_per_s, launch_s = flops_per_s * exp(sigma * z[0]), launch_s * exp(launch_sigma * z[1])
    kept = tuple(dict.fromkeys(pair.stack.memory for pair in pairs))
    memory = np.array([kept.index(pair.stack.memory) for pair in pairs], dtype=np.int64)[chosen]
    who = ", ".join(f"{name} {np.mean(names == name):.3g}" for name in sorted(set(names.tolist())))
    return Equipped(
        flops_per_s=flops_per_s,
        usable_memory_bytes=usable,
        memory_bytes_per_s=bandwidth,
        laws=Laws(names, launch_s, overhead_s, moved, expanded, sigma, chosen, memory, kept, used),
        sources={
            "stacks": stacks.names,
            "stacks_sha256": stacks.sha256,
            "stacks_run": who,
            "memory_models_sha256": memory_models_sha256(),
        },
    )


def _pairs(table: Hardware, row: int, compute: ComputeConfig, stacks: StackTable) -> Iterator[_Pair]:
    asked = compute.stack
    if isinstance(asked, dict):
        asked = asked.get(str(table.tier[row]), asked.get(str(table.os[row])))
    usual = asked in (None, "auto")
    where = f"stack of {table.device[row]}" if usual else "compute.stack"
    for name, share in shares_of(where, str(table.stack[row] if usual else asked)):
        if name not in stacks.stacks:
            raise ProfileError(message(where, "no such stack", got=name, fix=nearest(name, stacks.stacks)))
        stack = stacks.stacks[name]
        if not _runs(table, row, stack):
            able = [other.stack for other in stacks.stacks.values() if _runs(table, row, other)]
            what = f"does not run on {table.device[row]} ({table.os[row]})"
            fix = f"it runs {', '.join(able)}" if able else f"fill {PEAK_COLUMNS[stack.peak]} of its row"
            if not usual:
                fix += f"; or name stacks by class, as in compute.stack: {{{table.tier[row]}: auto}}"
            raise ProfileError(message(where, what, got=name, fix=fix))
        if _lacks_vram(table, row, stack):
            what = f"computes on a card, and {table.device[row]} has no vram_gb"
            fix = "fill vram_gb of its row [10^9 bytes], as in 8; where the card shares the RAM, with what it may use"
            raise ProfileError(message(where, what, got=name, fix=fix))
        if (
            stack.peak == "cpu"
            and np.isfinite(table.vram_bytes[row])
            and np.isnan(table.ram_bytes_per_s[row])
        ):
            what = f"computes in the RAM of {table.device[row]}, and its memory_bandwidth_gb_per_s is of the card"
            fix = "fill ram_bandwidth_gb_per_s of its row [10^9 bytes/s], as in 51.2 of two channels of DDR4-3200"
            raise ProfileError(message(where, what, got=name, fix=fix))
        yield _Pair(row, stack, share)


def _runs(table: Hardware, row: int, stack: Stack) -> bool:
    return str(table.os[row]) in stack.os and bool(np.isfinite(table.peaks[stack.peak][row]))


def _lacks_vram(table: Hardware, row: int, stack: Stack) -> bool:
    """Tell whether a stack computes on a card of whose memory nothing is said; a Jetson's GPU shares the RAM."""
    tier = str(table.tier[row])
    on_card = tier != "jetson" if stack.peak == "matrix" else stack.peak == "gpu" and tier == "laptop-dgpu"
    return on_card and bool(np.isnan(table.vram_bytes[row]))


def _chosen(pairs: list[_Pair], row: Ints, seed: int) -> Ints:
    """Return the pair of each client, (clients,), drawn by address where a row has several."""
    first: dict[int, int] = {}
    for k, pair in enumerate(pairs):
        first.setdefault(pair.row, k)
    chosen = np.empty(len(row), dtype=np.int64)
    several = [pair.row for k, pair in enumerate(pairs) if first[pair.row] != k]
    starts = np.full(int(row.max(initial=0)) + 1, -1, dtype=np.int64)
    starts[list(first)] = list(first.values())
    chosen[:] = starts[row]
    if several:
        chance = _blocks(len(row), lambda b: stream(seed, "stack", b).random((1, BLOCK)))[0]
        for one in set(several):
            members = row == one
            cumulated = np.cumsum([pair.share for pair in pairs if pair.row == one])
            chosen[members] += np.searchsorted(cumulated / cumulated[-1], chance[members], side="right")
    return chosen


def _figures(table: Hardware, pair: _Pair, app: App) -> tuple[float, ...]:
    """Return speed, launch, overhead, bandwidth, rate of reads, rate of expansion, usable memory, and both spreads."""
    stack, row = pair.stack, pair.row
    has_card = bool(np.isfinite(table.vram_bytes[row]))
    own_memory = stack.peak != "cpu" and has_card
    in_ram = has_card and not own_memory
    bandwidth = float(table.ram_bytes_per_s[row] if in_ram else table.memory_bytes_per_s[row])
    memory = float(table.vram_bytes[row] if own_memory else table.memory_bytes[row])
    return (
        stack.share_of_peak * float(table.peaks[stack.peak][row]),
        stack.launch_s,
        stack.pass_overhead_s,
        bandwidth,
        stack.bandwidth_share * bandwidth,
        stack.expand_share * bandwidth if stack.expand_share else np.inf,
        memory * usable_share("vram" if own_memory else str(table.os[row]), app),
        stack.share_sigma_ln,
        stack.launch_sigma_ln,
    )


def _normals(stacks: Sequence[str], chosen: Ints, compute: ComputeConfig, seed: int) -> Floats:
    """Return two standard normals a client, (2, clients): its own, or those of its stack.

    Args:
        stacks: of each device with its stack.
        chosen: which of those each client has, (clients,).
        compute: how uncertainty is drawn.
        seed: address of the draws of units.
    """
    draw = compute.uncertainty_draw
    if compute.uncertainty == "units":
        return _blocks(len(chosen), lambda b: stream(seed, "stack-unit", draw, b).standard_normal((2, BLOCK)))
    by_stack = {name: stream(draw, "stack", name).standard_normal(2) for name in set(stacks)}
    return np.array([by_stack[name] for name in stacks])[chosen].T


def _blocks(n: int, draw: Callable[[int], Floats]) -> Floats:
    """Return (k, n) numbers drawn in whole blocks of clients: those of client i do not depend on n."""
    blocks = [draw(block) for block in range(-(-n // BLOCK))]
    return np.concatenate(blocks, axis=1)[:, :n]
