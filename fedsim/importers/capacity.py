"""One latency and one rate a client, as a table of devices or of networks of ours.

Neither says what else a device or a link is. That is taken from the nearest row of our own tables, and the
header of the result says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import hetero_profiles
from fedsim.devices.presets import preset
from fedsim.devices.tables import read_devices
from fedsim.errors import ProfileError, message
from fedsim.files.user_tables import read_rows
from fedsim.importers.options import Options, needed
from fedsim.importers.table import Table, spread
from fedsim.network.base import DIRECTIONS

OF_LINK = (
    "rtt_ms", "rtt_sigma_ln", "packet_bytes", "down_radio_w", "down_radio_mw_per_mbps", "up_radio_w",
    "up_radio_mw_per_mbps", "within_cv", "autocorrelation_1s", "outage_share", "outage_mean_s",
)  # fmt: skip
_OF_DEVICE = ("class", "ram_gb", "memory_bandwidth_gb_per_s", "train_w", "idle_w", "battery_wh")


@dataclass(frozen=True, slots=True)
class Capacity:
    """What FedScale knows of a client."""

    client: str
    compute_ms: float
    down_kbps: float
    up_kbps: float


def capacity_table(path: Path, clients: list[Capacity], options: Options) -> Table:
    """Return the devices or the networks of the clients, one row each.

    Raises:
        ProfileError: `table` or `gflop_per_sample` is not given, or has no meaning here.
    """
    table = needed("fedscale-capacity", options, "table", "choose --table devices or --table networks")
    if table == "devices":
        fix = "give the work of one sample, as in 0.6 for a forward pass of MobileNetV2 at 224 x 224"
        gflop = float(needed("--table devices", options, "gflop_per_sample", fix))
        return _devices(clients, gflop)
    if options.gflop_per_sample is not None:
        raise ProfileError(
            message("--gflop-per-sample", "has no meaning for --table networks", fix="remove it")
        )
    return networks(
        {capacity.client: (capacity.down_kbps / 1000, capacity.up_kbps / 1000) for capacity in clients},
        "fedscale_wifi.csv",
        "wifi-mobiperf",
    )


def _devices(clients: list[Capacity], gflop: float) -> Table:
    latency_ms = np.array([capacity.compute_ms for capacity in clients])
    speed = 1000 * gflop / latency_ms
    ours = hetero_profiles.locate("devices.csv")
    latency = preset("fedscale_like").latency
    assert latency is not None
    known = read_devices(ours)
    allowed = np.flatnonzero(np.isin(known.device.astype(str), latency.nearest))
    order = allowed[np.argsort(known.flops_per_s[allowed], kind="stable")]
    middle = np.sqrt(known.flops_per_s[order[1:]] * known.flops_per_s[order[:-1]])
    nearest = order[np.searchsorted(middle, 1e9 * speed)]
    cells = read_rows(ours).cells
    columns: dict[str, list[Any]] = {"device": [capacity.client for capacity in clients]}
    columns |= {name: [_plain(cells[name][row]) for row in nearest] for name in _OF_DEVICE}
    for name in ("eff_lora_gflop_per_s", "eff_lora_lo_gflop_per_s", "eff_lora_hi_gflop_per_s"):
        columns[name] = speed.tolist()
    columns["share"] = [1] * len(clients)
    facts = {
        "speed": f"{gflop:g} GFLOP over the milliseconds of a sample",
        "assumed": "class, memory, power and battery: those of the phone of our devices.csv that is nearest in speed",
    }
    figures = {
        "clients": len(clients),
        "rows": len(clients),
        "ms a sample": spread(latency_ms),
        "gflop_per_s": spread(speed),
    }
    return Table("devices", columns, facts, figures)


def networks(
    mbps: dict[str, tuple[float, float]], file: str, row: str, cv: dict[str, float] | None = None
) -> Table:
    """Return a network a client: its rates down and up [Mbps], everything else from a row of ours.

    Args:
        mbps: client -> (down, up).
        file: table of ours.
        row: the row of it.
        cv: client -> standard deviation over mean of its rates; None: as that row.
    """
    cells = read_rows(hetero_profiles.locate(file)).cells
    at = cells["network"].index(row)
    columns: dict[str, list[Any]] = {"network": list(mbps), "access": ["wifi"] * len(mbps)}
    for k, direction in enumerate(DIRECTIONS):
        columns[f"{direction}_mbps"] = [rates[k] for rates in mbps.values()]
        columns[f"{direction}_sigma_ln"] = [0] * len(mbps)
    columns["down_up_correlation"] = [0] * len(mbps)
    columns |= {name: [_plain(cells[name][at])] * len(mbps) for name in OF_LINK}
    if cv is not None:
        columns["within_cv"] = [cv[client] for client in mbps]
    columns["share"] = [1] * len(mbps)
    varying = "" if cv is not None else " and how the rate varies"
    facts = {
        "assumed": f"round trip, framing, radio power, autocorrelation, outages{varying}: as {row} of our {file}"
    }
    figures: dict[str, Any] = {"clients": len(mbps), "rows": len(mbps)}
    figures |= {f"{direction}_mbps": spread(columns[f"{direction}_mbps"]) for direction in DIRECTIONS}
    return Table("networks", columns, facts, figures)


def _plain(cell: str) -> str | float:
    try:
        return float(cell)
    except ValueError:
        return cell
