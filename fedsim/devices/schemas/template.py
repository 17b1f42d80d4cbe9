"""Templates of tables: a file to begin with, whose comments say what every column means and what is usual."""

from __future__ import annotations

import csv
import io

from fedsim.devices.table_checks import KINDS, TableKind
from fedsim.errors import ProfileError, message, nearest
from fedsim.files.user_tables import Column

NAMES = ("devices", "hardware", "networks", "windows", "rates", "speeds", "stacks", "regions")
"""What there is a template of; `fedsim profiles contribute` writes rows of measurements."""
_MORE: dict[str, tuple[str, ...]] = {
    "devices": ("share",),
    "networks": (
        "within_cv",
        "autocorrelation_1s",
        "outage_share",
        "outage_mean_s",
        "tail_s",
        "tail_w",
        "share",
    ),
    "stacks": ("memory",),
    "windows": ("client",),
    "rates": ("down_mbps", "up_mbps"),
    "hardware": ("cpu_gflop_per_s", "share"),
}
"""Kind -> optional columns that its template has, too."""
_ROWS: dict[str, tuple[dict[str, str], ...]] = {
    "devices": (
        {"device": "my-phone", "share": "3"},
        {
            "device": "my-laptop",
            "class": "laptop",
            "eff_lora_lo_gflop_per_s": "25",
            "eff_lora_gflop_per_s": "45",
            "eff_lora_hi_gflop_per_s": "80",
            "ram_gb": "16",
            "memory_bandwidth_gb_per_s": "68",
            "train_w": "32",
            "idle_w": "5",
            "battery_wh": "54",
        },
    ),
    "networks": (
        {"network": "home"},
        {
            "network": "mobile",
            "access": "cellular",
            "down_mbps": "60",
            "up_mbps": "10",
            "rtt_ms": "45",
            "packet_bytes": "1500",
            "down_radio_w": "2.7",
            "up_radio_w": "2.9",
            "down_radio_mw_per_mbps": "15",
            "up_radio_mw_per_mbps": "80",
            "tail_s": "11.6",
            "tail_w": "1.06",
            "within_cv": "0.5",
            "outage_share": "0.01",
            "outage_mean_s": "2",
        },
    ),
    "windows": ({}, {"client": "1", "start_s": "3600", "stop_s": "25200"}),
    "rates": ({}, {"time_s": "60", "down_mbps": "8", "up_mbps": "4"}, {"time_s": "120"}),
    "hardware": (
        {"share": "3"},
        {
            "device": "my-laptop",
            "class": "laptop",
            "os": "linux",
            "stack": "pytorch-cpu",
            "memory_bandwidth_gb_per_s": "68",
            "ram_gb": "16",
            "train_w": "32",
            "idle_w": "5",
            "battery_wh": "54",
            "cpu_gflop_per_s": "178",
        },
    ),
    "regions": tuple(
        {"of": whole, "group": part, "share": share}
        for whole, parts in {
            "devices": {"phone": "0.7", "tablet": "0.08", "computer": "0.22"},
            "phone": {"iphone": "0.25", "android-phone": "0.75"},
            "android-phone": {"phone-low": "0.5", "phone-mid": "0.41", "phone-high": "0.09"},
            "tablet": {"ipad": "0.39", "android-tablet": "0.61"},
            "computer": {"mac": "0.16", "pc": "0.84"},
            "phone-link": {"wifi": "0.5", "cellular": "0.5"},
            "wifi": {"wifi-fibre": "0.5", "wifi-cable": "0.3", "wifi-dsl": "0.2"},
            "cellular": {"lte": "0.6", "5g-sub6": "0.4"},
        }.items()
        for part, share in parts.items()
    ),
}
"""Kind -> rows of its template, by what differs from the usual cells; one row of usual cells without an entry."""
_KEYS = {
    "devices": "population.devices",
    "hardware": "population.devices",
    "networks": "population.networks",
    "windows": "population.availability",
    "rates": "population.rates, with rates_at_end",
    "speeds": "compute.calibration",
    "stacks": "compute.stacks, and its names for compute.stack",
    "regions": "population.regions, beside a preset of a region as world_2026 or tables of your own",
}
"""Kind -> the keys of an experiment that take such a table."""
_FACTS = {"windows": {"period_s": "86400"}}


def template(name: str) -> str:
    """Return a table of a kind as CSV: comments that say what its columns are, and rows of usual values; it passes its checks.

    Raises:
        ProfileError: there is no template of that name.
    """
    if name not in NAMES:
        what = "there is no template of that name"
        raise ProfileError(message("profiles new", what, got=name, fix=nearest(name, NAMES)))
    kind = next(kind for kind in KINDS if kind.name == name)
    columns = _columns(kind)
    left_out = [column for column in kind.optional if column not in columns and column.meaning]
    lines = ["# source: say here where the figures are from", "# licence: say here who may use them"]
    lines.append(f"# goes to {_KEYS[name]}")
    lines += [f"# {key}: {value}" for key, value in _FACTS.get(name, {}).items()]
    lines += [f"# column {column.described}{_allowed(column)}" for column in columns]
    lines += [f"# may have {column.described}" for column in left_out]
    lines.append(
        "# numbers have no unit, decimals a point; columns of names that are not like these are yours"
    )
    text = io.StringIO()
    writer = csv.DictWriter(text, [column.name for column in columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows({c.name: row.get(c.name, c.usual) for c in columns} for row in _ROWS.get(name, ({},)))
    return "\n".join(lines) + "\n" + text.getvalue()


def _columns(kind: TableKind) -> tuple[Column, ...]:
    asked = _MORE.get(kind.name, ())
    more = tuple(column for column in kind.optional if column.name in asked)
    return (*more, *kind.columns) if kind.name == "windows" else (*kind.columns, *more)


def _allowed(column: Column) -> str:
    return f"; one of: {', '.join(column.choices)}" if column.choices else ""
