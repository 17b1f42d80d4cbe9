"""Which rate each client's link has over time: none (constant), generated around its mean, or a trace."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from fedsim.arrays import Bools, Floats, Ints, Names
from fedsim.config.words import no_such_file
from fedsim.devices.availability import BLOCK
from fedsim.devices.tables import NetworkTable
from fedsim.errors import ProfileError, message, nearest
from fedsim.network.base import Direction, Rates
from fedsim.network.generated import LognormalAR1, RateLaw
from fedsim.network.rate_tables import RateTable, read_rate_table
from fedsim.rng import stream

if TYPE_CHECKING:
    from fedsim.config.population import PopulationConfig


class LinkRates(Protocol):
    """The rates of a population's links over time."""

    def of(self, client: int, direction: Direction) -> Rates | None:
        """Return those of one link; None: its rate never changes."""
        ...


@dataclass(frozen=True, eq=False)
class Generated:
    """Every link by the law of its network, around its own mean.

    Attributes:
        seed: address of the randomness.
        laws: one a row of the network table.
        row: (n,) each client's row.
        means: direction -> (n,) mean rate [bytes/s].
    """

    seed: int
    laws: tuple[RateLaw, ...]
    row: Ints
    means: dict[Direction, Floats]

    def of(self, client: int, direction: Direction) -> Rates:
        """Return the rate of one link."""
        law = self.laws[self.row[client]]
        return LognormalAR1(float(self.means[direction][client]), law, self.seed, client, direction)


@dataclass(frozen=True, eq=False)
class Traced:
    """Every link by a trace of a table.

    Attributes:
        table: the traces.
        place: (n,) each client's trace.
        phase: (n,) where in its trace a client begins, as a share of its length.
        scales: direction -> (n,) factor on the trace's rates.
    """

    table: RateTable
    place: Ints
    phase: Floats
    scales: dict[Direction, Floats]

    def of(self, client: int, direction: Direction) -> Rates | None:
        """Return the rate of one link; None where the table has no rate in this direction."""
        if direction not in self.table.traces:
            return None
        trace = self.table.traces[direction][int(self.place[client])]
        return trace.of(
            phase_s=float(self.phase[client] * trace.times_s[-1]),
            scale=float(self.scales[direction][client]),
            where=f"{trace.where} (client {client}, {direction})",
        )

    def means(self, direction: Direction) -> Floats:
        """Return the mean rates of the traces as the clients see them, (n,) [bytes/s]."""
        means = np.array([trace.mean_bytes_per_s for trace in self.table.traces[direction]])
        return np.asarray(means[self.place] * self.scales[direction], dtype=np.float64)


@dataclass(frozen=True, eq=False)
class OfSome:
    """Rates over time of some links; those of the others never change.

    Attributes:
        all_links: what they would be if all links had them.
        follows: (n,) whose links have.
    """

    all_links: LinkRates
    follows: Bools

    def of(self, client: int, direction: Direction) -> Rates | None:
        """Return the rate of one link; None: it never changes."""
        return self.all_links.of(client, direction) if self.follows[client] else None


def link_rates(
    config: PopulationConfig, network: Names, means: dict[Direction, Floats], nets: NetworkTable, seed: int
) -> tuple[LinkRates | None, dict[Direction, Floats], dict[str, str]]:
    """Return the rates of all links, their means (as drawn, or those of the traces), and what was used.

    Args:
        config: `rates` and its options.
        network: (n,) name of each client's network.
        means: direction -> (n,) rates as drawn from the network table [bytes/s].
        nets: that table.
        seed: address of the randomness.

    Raises:
        ProfileError: no such file, a broken one, or a network table that does not say how its rates vary.
    """
    if config.rates == "constant":
        return None, means, {"rates": "constant"}
    if config.rates == "generated":
        laws, sources = _generated(network, means, nets, seed), {"rates": "generated"}
        return _of_some(config, laws, network, nets, sources), means, sources
    absent = no_such_file("population.rates", config.rates)
    if absent is not None:
        raise ProfileError(message(absent.name, absent.what, got=config.rates, fix=absent.fix))
    assert config.rates_at_end is not None  # held by the configuration
    table = read_rate_table(Path(config.rates), config.rates_at_end)
    traced = _traced(config, table, len(network), means, seed)
    sources = {
        "rates": config.rates,
        "rates_sha256": table.sha256,
        "rates_directions": ", ".join(table.traces),
        "rates_at_end": str(config.rates_at_end),
        "rates_phase": config.rates_phase,
        "rates_level": config.rates_level,
    }
    some = _of_some(config, traced, network, nets, sources)
    follows = some.follows if isinstance(some, OfSome) else np.ones(len(network), dtype=np.bool_)
    over_time = {way: np.where(follows, traced.means(way), means[way]) for way in table.traces}
    return some, means | over_time, sources


def _of_some(
    config: PopulationConfig, rates: LinkRates, network: Names, nets: NetworkTable, sources: dict[str, str]
) -> LinkRates:
    """Return the rates of the links that `rates_for` names, and say which in `sources`.

    Raises:
        ProfileError: no such network.
    """
    if config.rates_for is None:
        return rates
    names = nets.network.tolist()
    unknown = next((name for name in config.rates_for if name not in names), None)
    if unknown is not None:
        what = f"no such network in {nets.shares.where}"
        raise ProfileError(message("population.rates_for", what, got=unknown, fix=nearest(unknown, names)))
    sources["rates_for"] = ", ".join(config.rates_for)
    return OfSome(rates, np.isin(network.astype(str), config.rates_for))


def _generated(network: Names, means: dict[Direction, Floats], nets: NetworkTable, seed: int) -> Generated:
    if nets.laws is None:
        what = "does not say how its rates vary, as population.rates: generated needs it"
        fix = "add within_cv, autocorrelation_1s, outage_share and outage_mean_s, or rates: constant"
        raise ProfileError(message(nets.shares.where, what, fix=fix))
    row_of = {name: row for row, name in enumerate(nets.network)}
    row = np.array([row_of[name] for name in network], dtype=np.int64)
    return Generated(seed, nets.laws, row, means)


def _traced(
    config: PopulationConfig, table: RateTable, n: int, means: dict[Direction, Floats], seed: int
) -> Traced:
    """Give client c the c-th trace, later clients one drawn by address; begin it where `rates_phase` says."""
    traces = len(table.names)
    place, phase = np.empty(n, dtype=np.int64), np.zeros(n)
    for block, first in enumerate(range(0, n, BLOCK)):
        rng = stream(seed, "rate-traces", block)
        mine = slice(first, min(first + BLOCK, n))
        place[mine] = rng.integers(traces, size=BLOCK)[: min(BLOCK, n - first)]
        if config.rates_phase == "random":
            phase[mine] = rng.random(BLOCK)[: min(BLOCK, n - first)]
    place[:traces] = np.arange(min(n, traces))
    scales: dict[Direction, Floats] = {}
    for direction, of_table in table.traces.items():
        level = np.array([trace.mean_bytes_per_s for trace in of_table])[place]
        scales[direction] = means[direction] / level if config.rates_level == "client" else np.ones(n)
    return Traced(table, place, phase, scales)
