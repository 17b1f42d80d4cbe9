"""Which rate each client's link has over time: none (constant), generated around its mean, or a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from fedsim.arrays import Bools, Floats, Ints, Names
from fedsim.config.classes import CLASSES
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


@dataclass(frozen=True, eq=False)
class OfSeveral:
    """Rates over time by kind of link.

    Attributes:
        kinds: the rates that all links of a kind would have; None: they never change.
        which: (n,) each client's kind, from 0; -1: of none, and its rate never changes.
    """

    kinds: Sequence[LinkRates | None]
    which: Ints

    def of(self, client: int, direction: Direction) -> Rates | None:
        """Return the rate of one link; None: it never changes."""
        kind = None if self.which[client] < 0 else self.kinds[int(self.which[client])]
        return None if kind is None else kind.of(client, direction)


class Clients(NamedTuple):
    """What kind of link each client has, (n,) names: of its network, and of its class of devices."""

    network: Names
    tier: Names


def rates_by_link(
    config: PopulationConfig,
    clients: Clients,
    means: dict[Direction, Floats],
    nets: NetworkTable,
    seed: int,
) -> tuple[LinkRates | None, dict[Direction, Floats], dict[str, str]]:
    """Return the rates of all links as `link_rates` does, where `rates` may say for each kind of link where they are from.

    Raises:
        ProfileError: as `link_rates` does, or no such kind of link.
    """
    if isinstance(config.rates, str):
        return link_rates(config, clients.network, means, nets, seed)
    kinds, which, digests = [], np.full(len(clients.network), -1), []
    means = dict(means)
    for number, (key, follows) in enumerate(_kinds(config.rates, clients, nets)):
        mine = follows & (which < 0)
        which[mine] = number
        of_kind = config.model_copy(update={"rates": config.rates[key]})
        varying, over_time, sources = link_rates(of_kind, clients.network, means, nets, seed)
        kinds.append(varying)
        digests += [sources["rates_sha256"]] if "rates_sha256" in sources else []
        for way, of_all in over_time.items():
            means[way] = np.where(mine, of_all, means[way])
    facts = {"rates": ", ".join(f"{key} {source}" for key, source in config.rates.items())}
    if digests:
        facts |= {"rates_sha256": " ".join(digests), "rates_at_end": str(config.rates_at_end)}
        facts |= {"rates_phase": config.rates_phase, "rates_level": config.rates_level}
    varies = any(kind is not None for kind in kinds)
    return OfSeveral(kinds, which) if varies else None, means, facts


def _kinds(rates: Mapping[str, str], clients: Clients, nets: NetworkTable) -> Iterator[tuple[str, Bools]]:
    """Yield the kinds of links with the clients that have one, (n,): rows of the network table, then accesses, then classes.

    Raises:
        ProfileError: no such kind.
    """
    access = dict(zip(map(str, nets.network), map(str, nets.access), strict=True))
    known = [*access, *dict.fromkeys(("wifi", "wired", "cellular", *CLASSES))]
    for key in sorted(rates, key=lambda key: known.index(key) if key in known else -1):
        if key not in known:
            what = f"is neither a network of {nets.shares.where}, nor an access, nor a class of devices"
            raise ProfileError(message("population.rates", what, got=key, fix=nearest(key, known)))
        if key in access:
            yield key, clients.network.astype(str) == key
        elif key in CLASSES:
            yield key, clients.tier.astype(str) == key
        else:
            yield key, np.isin(clients.network.astype(str), [name for name in access if access[name] == key])


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
    source = config.rate_sources[0]
    if source == "constant":
        return None, means, {"rates": "constant"}
    if source == "generated":
        laws, sources = _generated(network, means, nets, seed), {"rates": "generated"}
        return _of_some(config, laws, network, nets, sources), means, sources
    absent = no_such_file("population.rates", source)
    if absent is not None:
        raise ProfileError(message(absent.name, absent.what, got=source, fix=absent.fix))
    assert config.rates_at_end is not None  # held by the configuration
    table = read_rate_table(Path(source), config.rates_at_end)
    traced = _traced(config, table, len(network), means, seed)
    sources = {
        "rates": source,
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
