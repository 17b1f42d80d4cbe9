"""What an experiment has come to: the clients that were drawn, and the settings that follow from others. One value, shown thrice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedsim.records.quantities import percent

TABLES = ("devices", "networks", "regions", "stacks", "availability", "people", "rates")
"""Tables that a population may be drawn from, in the order in which they are shown."""
DIGITS = 12
"""Digits of a digest that are shown: enough to tell versions of a table apart."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """How many clients have a class of device on a network."""

    tier: str
    network: str
    clients: int


@dataclass(frozen=True, slots=True)
class Followed:
    """A setting that was left open, what it has come to, and why."""

    key: str
    value: str
    why: str

    def __str__(self) -> str:
        """Return it as a line of a file, with the reason."""
        return f"{self.key}: {self.value} ({self.why})"


@dataclass(frozen=True, slots=True)
class DeviceLaw:
    """The law of the steps of all clients with one device and one stack, as `fedsim.devices.stacks.law` has it.

    Attributes:
        device, stack: names in the tables of devices and stacks.
        clients: how many there are.
        pass_overhead_s: fixed time of a pass.
        moved_s_per_byte, expanded_s_per_byte: of weights that are read, and of quantised ones that are unpacked.
        flops_per_s: with many tokens a pass; None: drawn unit by unit.
        launch_s: floor of a layer pass; None: drawn unit by unit.
    """

    device: str
    stack: str
    clients: int
    pass_overhead_s: float
    moved_s_per_byte: float
    expanded_s_per_byte: float
    flops_per_s: float | None = None
    launch_s: float | None = None


@dataclass(frozen=True, slots=True)
class PassWork:
    """What one forward and backward pass is, by rank and by what was done so that it fits the memory.

    Attributes:
        rank, memory_plan: as in the tables.
        tokens: of a pass at most; update_tokens: of an optimiser step at most.
        layer_passes: layers times how often each is passed.
        moved_bytes, update_bytes: through the device's memory, of a pass and of an optimiser step.
        expanded_bytes: to unpack quantised weights in memory.
        examples: of a pass at most, where steps are those of the training; 0: tokens are cut as one stream.
    """

    rank: int
    memory_plan: str
    tokens: int
    update_tokens: int
    layer_passes: float
    moved_bytes: float
    update_bytes: float
    expanded_bytes: float
    examples: int = 0


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a reader cannot see in the configuration.

    Attributes:
        drawn: clients by class of device and network, the classes in their usual order.
        online_at_start, online_mean: share of the clients online at time 0, and of all time, by windows and outages alone.
        followed: settings that follow from others.
        notices: what the task says of its data and model: files left out, where test data are from, what stays frozen.
    """

    drawn: tuple[Drawn, ...]
    online_at_start: float
    online_mean: float
    followed: tuple[Followed, ...] = ()
    notices: tuple[str, ...] = ()

    @property
    def clients(self) -> int:
        """Number of clients."""
        return sum(group.clients for group in self.drawn)

    @property
    def online(self) -> str:
        """How many are online, in words."""
        if self.online_at_start == self.online_mean == 1.0:
            return "everybody, always"
        start, mean = percent(self.online_at_start), percent(self.online_mean)
        return f"{start} of the clients at the start, {mean} on average"

    def table(self) -> list[dict[str, str]]:
        """Return the clients as rows: a class of devices each, a column a network, the last row all of them."""
        networks = list(dict.fromkeys(group.network for group in self.drawn))
        tiers = list(dict.fromkeys(group.tier for group in self.drawn))
        rows = [self._row(tier, networks, [g for g in self.drawn if g.tier == tier]) for tier in tiers]
        return rows if len(rows) == 1 else [*rows, self._row("all", networks, self.drawn)]

    @staticmethod
    def _row(name: str, networks: Sequence[str], groups: Sequence[Drawn]) -> dict[str, str]:
        counts = {name: sum(g.clients for g in groups if g.network == name) for name in networks}
        total = sum(counts.values())
        return {"drawn": name, "clients": str(total), **{n: str(c) for n, c in counts.items()}}

    def lines(self) -> list[str]:
        """Return it in a few lines: who, who is online, what follows from other settings, what the task says."""
        tiers = list(dict.fromkeys(group.tier for group in self.drawn))
        parts = []
        for tier in tiers:
            groups = [group for group in self.drawn if group.tier == tier]
            links = ", ".join(f"{group.network} {group.clients}" for group in groups)
            parts.append(f"{tier} {sum(group.clients for group in groups)} ({links})")
        return [
            f"drawn: {', '.join(parts)}",
            f"online: {self.online}",
            *(f"set by other keys: {followed}" for followed in self.followed),
            *(f"note: {notice}" for notice in self.notices),
        ]


@dataclass(frozen=True, slots=True)
class TableVersion:
    """One table that a population was drawn from.

    Attributes:
        role: what it says: `devices`, `networks`, ...
        name: its file.
        year: of its figures; empty: it is not one of ours.
        sha256: of its bytes.
    """

    role: str
    name: str
    year: str
    sha256: str

    def __str__(self) -> str:
        """Return it in words."""
        year = f"{self.year}, " if self.year else ""
        digests = ", ".join(digest[:DIGITS] for digest in self.sha256.split())
        names = " and ".join(Path(name).name for name in self.name.split(" ", self.sha256.count(" ")))
        return f"{self.role} {names} ({year}sha256 {digests})"


def tables_of(sources: Mapping[str, str]) -> list[TableVersion]:
    """Return the tables of which a population's sources have a digest."""
    return [
        TableVersion(
            role, sources.get(role, role), sources.get(f"{role}_year", ""), sources[f"{role}_sha256"]
        )
        for role in TABLES
        if f"{role}_sha256" in sources
    ]
