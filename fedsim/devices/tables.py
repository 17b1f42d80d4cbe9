"""Profile tables as arrays in SI units: devices, networks, windows of availability.

A table is read whole or not at all: the first problem that `fedsim.devices.table_checks` finds is raised.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedsim.arrays import Bools, Floats, Ints, Names
from fedsim.config.classes import CLASSES
from fedsim.devices.groups.columns import Between, between_of
from fedsim.devices.schemas.devices import SPEEDS
from fedsim.devices.schemas.networks import VARIATION_COLUMNS
from fedsim.devices.stacks.hardware import Hardware, hardware_of, is_hardware
from fedsim.devices.table_checks import (
    device_problems,
    hardware_table_problems,
    network_problems,
    owners,
    period_of,
    share_columns,
    window_problems,
)
from fedsim.errors import Message, ProfileError, message
from fedsim.files.user_tables import Rows, numbers, read_rows
from fedsim.network.base import MBPS
from fedsim.network.generated import RateLaw

P95 = 1.6448536269514722
"""The 95 % point of the standard normal: lo..hi of a device row lie this many sigmas from the middle."""


@dataclass(frozen=True)
class Shares:
    """Share columns of a table; a row's chance is its share over the column's sum."""

    where: str
    keys: Names
    columns: dict[str, Floats]

    def pick(self, choice: str | dict[str, float] | None) -> Floats:
        """Return one weight a row: a column's, those of a mapping row -> share, or of the only column.

        Raises:
            ProfileError: no such column or row, several columns and none chosen, or all shares zero.
        """
        if isinstance(choice, dict):
            unknown = sorted(set(choice) - set(self.keys.tolist()))
            if unknown:
                raise ProfileError(message(self.where, "has no such row", got=unknown[0], fix=self._rows()))
            if sum(choice.values()) <= 0:
                fix = "give at least one row a positive share"
                raise ProfileError(message(self.where, "all shares are 0", got=choice, fix=fix))
            return np.array([choice.get(key, 0.0) for key in self.keys], dtype=np.float64)
        if choice is None:
            if "share" not in self.columns and len(self.columns) != 1:
                fix = "name one of them `share`: how often each row occurs, in any unit"
                what = "several share columns, and none is called `share`"
                raise ProfileError(message(self.where, what, got=sorted(self.columns), fix=fix))
            choice = "share" if "share" in self.columns else next(iter(self.columns))
        if choice not in self.columns:
            fix = f"choose one of: {', '.join(sorted(self.columns))}"
            raise ProfileError(message(self.where, "has no such share column", got=choice, fix=fix))
        return self.columns[choice]

    def _rows(self) -> str:
        return f"choose among: {', '.join(self.keys)}"


@dataclass(frozen=True)
class DeviceTable:
    """Device rows in SI units; every array has one entry a row.

    `hardware` is there where the table says what devices are: speed and usable memory are then NaN until it is known
    which software they run.
    """

    sha256: str
    shares: Shares
    device: Names
    tier: Names
    flops_per_s: Floats
    sigma_ln: Floats
    memory_bytes: Floats
    usable_memory_bytes: Floats
    memory_bytes_per_s: Floats
    train_w: Floats
    idle_w: Floats
    battery_wh: Floats
    cpu_quota: Floats
    cpu_period_s: Floats
    cellular: Bools
    hardware: Hardware | None = None


@dataclass(frozen=True)
class NetworkTable:
    """Network rows in SI units; every array has one entry a row.

    `laws` says how the rate of each row varies around its mean; None if a column of that is missing. `between` is what lies
    between a client and its line: the Wi-Fi of its home, or its cell.
    """

    sha256: str
    shares: Shares
    network: Names
    access: Names
    cellular: Bools
    down_bytes_per_s: Floats
    down_sigma_ln: Floats
    up_bytes_per_s: Floats
    up_sigma_ln: Floats
    correlation: Floats
    rtt_s: Floats
    rtt_sigma_ln: Floats
    framing: Floats
    down_radio_w: Floats
    down_radio_j_per_byte: Floats
    up_radio_w: Floats
    up_radio_j_per_byte: Floats
    tail_s: Floats
    tail_w: Floats
    laws: tuple[RateLaw, ...] | None
    between: Between


@dataclass(frozen=True)
class WindowTable:
    """Windows of traces: trace index (a client's number if the file has `client`), start, stop."""

    sha256: str
    period_s: float
    trace: Ints
    start_s: Floats
    stop_s: Floats


def read_devices(path: Path) -> DeviceTable:
    """Return a device table; speeds are the row's median and sigma_ln = ln(hi / lo) / (2 * 1.645), or follow from hardware.

    Raises:
        ProfileError: the first problem, with its row and column.
    """
    rows = read_rows(path)
    hardware = None
    if is_hardware(rows):
        hardware = hardware_of(_sound(rows, hardware_table_problems))
        lo = median = hi = np.ones(len(rows.numbers))
    else:
        lo, median, hi = (numbers(_sound(rows, device_problems), name) for name in SPEEDS)
    tier = np.array(rows.cells["class"], dtype=object)
    memory_bytes = 1e9 * numbers(rows, "ram_gb")
    return DeviceTable(
        sha256=rows.sha256,
        shares=_shares(rows, "device"),
        device=np.array(rows.cells["device"], dtype=object),
        tier=tier,
        flops_per_s=1e9 * median if hardware is None else np.full(len(rows.numbers), np.nan),
        sigma_ln=np.array([math.log(ratio) for ratio in hi / lo]) / (2 * P95),
        memory_bytes=memory_bytes,
        usable_memory_bytes=memory_bytes
        * np.array([np.nan if hardware else CLASSES[t].usable_memory for t in tier]),
        memory_bytes_per_s=1e9 * numbers(rows, "memory_bandwidth_gb_per_s"),
        train_w=numbers(rows, "train_w"),
        idle_w=numbers(rows, "idle_w"),
        battery_wh=numbers(rows, "battery_wh"),
        cpu_quota=_optional(rows, "cpu_quota", 1.0),
        cpu_period_s=1e-3 * _optional(rows, "cpu_period_ms", 100.0),
        cellular=np.array([CLASSES[t].cellular for t in tier], dtype=np.bool_),
        hardware=hardware,
    )


def read_networks(path: Path) -> NetworkTable:
    """Return a network table; 1 Mbps = 125,000 bytes/s, 1 mW per Mbps = 8e-9 J per byte.

    Raises:
        ProfileError: the first problem, with its row and column.
    """
    rows = _sound(read_rows(path), network_problems)
    return NetworkTable(
        sha256=rows.sha256,
        shares=_shares(rows, "network"),
        network=np.array(rows.cells["network"], dtype=object),
        access=np.array(rows.cells["access"], dtype=object),
        cellular=np.array([access == "cellular" for access in rows.cells["access"]], dtype=np.bool_),
        down_bytes_per_s=MBPS * numbers(rows, "down_mbps"),
        down_sigma_ln=numbers(rows, "down_sigma_ln"),
        up_bytes_per_s=MBPS * numbers(rows, "up_mbps"),
        up_sigma_ln=numbers(rows, "up_sigma_ln"),
        correlation=numbers(rows, "down_up_correlation"),
        rtt_s=1e-3 * numbers(rows, "rtt_ms"),
        rtt_sigma_ln=numbers(rows, "rtt_sigma_ln"),
        framing=numbers(rows, "packet_bytes") / 1448,
        down_radio_w=numbers(rows, "down_radio_w"),
        down_radio_j_per_byte=8e-9 * numbers(rows, "down_radio_mw_per_mbps"),
        up_radio_w=numbers(rows, "up_radio_w"),
        up_radio_j_per_byte=8e-9 * numbers(rows, "up_radio_mw_per_mbps"),
        tail_s=_optional(rows, "tail_s", 0.0),
        tail_w=_optional(rows, "tail_w", 0.0),
        laws=_laws(rows),
        between=between_of(rows),
    )


def read_window_table(path: Path) -> WindowTable:
    """Return a table of windows; `# period_s: P` (CSV) or the attribute `period_s` (Parquet) repeats it.

    Raises:
        ProfileError: the first problem, with its row and column.
    """
    rows = _sound(read_rows(path), window_problems)
    period_s = period_of(rows)
    return WindowTable(
        sha256=rows.sha256,
        period_s=math.inf if period_s is None else period_s,
        trace=owners(rows),
        start_s=numbers(rows, "start_s"),
        stop_s=numbers(rows, "stop_s"),
    )


def _sound(rows: Rows, problems_of: Callable[[Rows], Iterator[Message]]) -> Rows:
    first = next(problems_of(rows), None)
    if first is not None:
        raise ProfileError(first)
    return rows


def _laws(rows: Rows) -> tuple[RateLaw, ...] | None:
    names = [column.name for column in VARIATION_COLUMNS]
    if any(name not in rows.cells for name in names):
        return None
    figures = (numbers(rows, name).tolist() for name in names)
    return tuple(RateLaw(*row) for row in zip(*figures, strict=True))


def _optional(rows: Rows, name: str, default: float) -> Floats:
    return numbers(rows, name) if name in rows.cells else np.full(len(rows.numbers), default)


def _shares(rows: Rows, key: str) -> Shares:
    columns = {name: numbers(rows, name) for name in share_columns(rows)}
    return Shares(str(rows.path), np.array([str(k) for k in rows.cells[key]], dtype=object), columns)
