"""A population as a small table, and how good its times are."""

from __future__ import annotations

import math

import numpy as np

import hetero_profiles
from fedsim.arrays import Bools, Floats
from fedsim.config.classes import CLASSES
from fedsim.config.fields import DAY_S
from fedsim.devices.availability import Availability
from fedsim.devices.people.places import carried_by, share_by_hour
from fedsim.devices.population import Population, draw_devices
from fedsim.devices.presets import preset
from fedsim.devices.stacks.software import Laws
from fedsim.files.user_tables import read_rows
from fedsim.network.base import MBPS
from fedsim.records.resolved import tables_of

P75, P95 = 0.6744897501960817, 1.6448536269514722
"""Half, and nine in ten, of a normal's draws lie within so many sigmas."""
SHOWN = 20_000
"""Clients that a preset is shown by."""


def show(name: str, n: int = SHOWN) -> list[dict[str, str | float]]:
    """Return a preset as a small table: one row a tier, then `all`; quantiles over n drawn clients.

    Raises:
        ProfileError: no such preset.
    """
    return summary(draw_devices(name, n, seed=0))


def summary(population: Population) -> list[dict[str, str | float]]:
    """Return a population as a small table: one row a tier, then `all`; quantiles over its clients."""
    tiers = [tier for tier in CLASSES if np.any(population.tier == tier)]
    return [_summary(population, tier, population.tier == tier) for tier in tiers] + [
        _summary(population, "all", np.ones(population.n, dtype=np.bool_))
    ]


def _summary(population: Population, tier: str, who: Bools) -> dict[str, str | float]:
    def quantile(values: Floats, q: float) -> float:
        return float(np.quantile(values[who], q))

    return {
        "tier": tier,
        "share": float(who.mean()),
        "gflop_per_s_p5": quantile(population.flops_per_s / 1e9, 0.05),
        "gflop_per_s_p50": quantile(population.flops_per_s / 1e9, 0.5),
        "gflop_per_s_p95": quantile(population.flops_per_s / 1e9, 0.95),
        "ram_gb_p50": quantile(population.memory_bytes / 1e9, 0.5),
        "down_mbps_p50": quantile(population.down_bytes_per_s / MBPS, 0.5),
        "up_mbps_p50": quantile(population.up_bytes_per_s / MBPS, 0.5),
        "rtt_ms_p50": quantile(population.rtt_s * 1e3, 0.5),
    }


def shares(population: Population) -> list[dict[str, str | float]]:
    """Return who runs which operating system on which network: one row a system, then `all`; nothing where no table says it."""
    if population.hardware is None:
        return []
    systems = population.hardware.table.os[population.hardware.row].astype(str)
    phones = carried_by(population.tier)
    groups = [(f"{name}, phones", phones & (systems == name)) for name in sorted(set(systems[phones]))]
    groups += [(name, ~phones & (systems == name)) for name in sorted(set(systems[~phones]))]
    groups.append(("all", np.ones(population.n, dtype=np.bool_)))
    networks = sorted(set(population.network.astype(str)))
    return [
        {
            "system": name,
            "share": float(who.mean()),
            **{network: float(np.mean(population.network[who] == network)) for network in networks},
        }
        for name, who in groups
    ]


def by_hour(windows: Availability) -> str:
    """Return which share of the clients is online by hour of the day, and how far it swings; empty where days do not repeat."""
    if windows.constant or not math.isfinite(windows.period_s) or windows.period_s % DAY_S:
        return ""
    online = share_by_hour(windows)
    hours = " ".join(f"{100 * share:.1f}" for share in online)
    swing = f"{online.max() / online.min():.2g}" if online.min() > 0 else "no bound"
    return f"online by hour of the day, from 0 h [%]: {hours}; most over least: {swing}"


def cited(name: str) -> list[dict[str, str | float]]:
    """Return the figures that the shares of a preset follow from, one row each; nothing for one of no region."""
    chosen = preset(name)
    if chosen.region is None:
        return []
    rows = read_rows(hetero_profiles.locate(chosen.regions))
    columns = {column: rows.cells[column] for column in ("region", "of", "group", "share", "kind", "source")}
    return [
        {"of": of, "group": group, "share": float(share), "kind": kind, "source": shortened(source)}
        for region, of, group, share, kind, source in zip(*columns.values(), strict=True)
        if region == chosen.region
    ]


def shortened(text: str, most: int = 70) -> str:
    """Return a text of at most so many characters, cut at a blank."""
    return text if len(text) <= most else f"{text[: text.rfind(' ', 0, most)]} ..."


def tables(population: Population) -> str:
    """Return which tables a population is from, with their years and digests."""
    return f"tables: {'; '.join(map(str, tables_of(population.sources)))}"


def trust(population: Population) -> str:
    """Return a sentence that says how good the times of a population are, and what an old preset has wrong."""
    if population.laws is not None:
        return _trust_in(population.laws)
    if "preset" in population.sources and preset(population.sources["preset"]).caution:
        return f"caution: {preset(population.sources['preset']).caution}"
    return "how good its times are is not known: its table has speeds, whatever software and batch"


def _trust_in(laws: Laws) -> str:
    """Return how good times are whose software was measured, and who runs software that was measured once, or by nobody."""
    fitted = {name for name, stack in laws.rows.items() if stack.kind == "fitted" and not stack.own}
    known = np.isin(laws.stack.astype(str), sorted(fitted))
    parts = []
    if not np.all(known):
        rests: dict[str, list[str]] = {}
        for name in sorted(set(map(str, laws.stack)) - fitted):
            stack = laws.rows[name]
            rests.setdefault("are your own" if stack.own else _RESTS[stack.kind], []).append(name)
        told = ", and ".join(f"of {', '.join(names)} {why}" for why, names in rests.items())
        share = 100 * float(1 - known.mean())
        parts.append(
            f"how good the times of {share:.3g} % of the clients are is not known: the figures {told}"
        )
    if np.any(known):
        sigma = float(np.sqrt(np.mean(laws.sigma_ln[known] ** 2)))
        within, nine = math.exp(P75 * sigma), math.exp(P95 * sigma)
        whose = "the others" if parts else "this population"
        parts.append(
            f"times of {whose} are good to a factor of {within:.2g} for half of the devices, and of {nine:.2g} for nine in ten "
            "if they are what their rows say (stacks.csv: the spread of public measurements of devices left out of the fit)"
        )
    return "; ".join(parts)


_RESTS = {"derived": "follow from a single measurement", "assumed": "are assumed", "fitted": "are fitted"}
"""Kind of a row of the table of stacks -> what its figures rest on."""
