"""The rows of a run's five tables: a column is a field, its type is the column's type.

NaN stands for an instant that a visit never reached and for a value that nobody computed; -1 for a number
of a version, a round or a staleness that there is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from operator import attrgetter
from typing import Any, Literal, TypeAlias, get_args

Outcome = Literal[
    "landed", "offline", "memory", "late", "surplus", "rejected", "stale", "polled", "failed", "in_flight"
]
"""How a visit can end; `in_flight`: the run ended first; `stale`: it landed later than `protocol.max_staleness` allows."""
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)

Cause = Literal["window", "outage", "battery", "heat"]
"""Why a device goes away."""
CAUSES: tuple[Cause, ...] = get_args(Cause)


@dataclass(frozen=True, slots=True)
class ClientRow:
    """A client of the population.

    Attributes:
        client: its index; device, tier, network: names in the tables of devices.
        rank: of its adapter, 0 where whole models are trained.
        flops_per_s: effective speed of its training [FLOP/s].
        memory_bytes, usable_memory_bytes, needed_memory_bytes: what it has, may use, and needs for its rank.
        memory_plan: how its training fits into the memory, in words.
        idle_w: what it draws without our work [W].
        down_bytes_per_s, up_bytes_per_s, rtt_s: mean rates and round trip of its link.
        online_share: share of time in which its windows are open.
        examples, tokens: of a visit.
        visit_flops: of the training of a whole visit at its own rank [FLOP].
        train_w: what it draws while it trains, idle power included [W].
        down_radio_w, up_radio_w, down_radio_j_per_byte, up_radio_j_per_byte: of an active radio, above idle.
        tail_w, tail_s: power of a radio that stays up after a transfer, and for how long.
        framing: bytes on its link per byte of payload.
        battery_wh: capacity of its row in the table of devices, 0 without one.
        cpu_quota, cpu_period_s: share of a processor that it is, given out once a period; 1: all of it.
        windows: when it is online, outages left out: `start:stop` one after the other [s], or the SHA-256 of such a
            text in a population whose windows are very many.
        window_period_s: with which period they repeat, inf if they do not.
    """

    client: int
    device: str
    tier: str
    network: str
    rank: int
    flops_per_s: float
    memory_bytes: float
    usable_memory_bytes: float
    needed_memory_bytes: float
    memory_plan: str
    idle_w: float
    down_bytes_per_s: float
    up_bytes_per_s: float
    rtt_s: float
    online_share: float
    examples: int
    tokens: int
    visit_flops: float
    train_w: float
    down_radio_w: float
    up_radio_w: float
    down_radio_j_per_byte: float
    up_radio_j_per_byte: float
    tail_w: float
    tail_s: float
    framing: float
    battery_wh: float
    cpu_quota: float
    cpu_period_s: float
    windows: str
    window_period_s: float


@dataclass(frozen=True, slots=True)
class VisitRow:
    """A dispatched visit, once its fate is final.

    Attributes:
        order: place among all dispatches; client: whose; visit: k-th of this client, from 0.
        version: of the model that was sent; round: of the protocol, -1 without rounds.
        dispatched_s, downloaded_s, trained_s, landed_s, ended_s: virtual instants; NaN where it never came to that.
        outcome: how it ended; away: why its device went away last, empty if it never did.
        paused_s: how long its device was away while it waited; work_share: share of its steps in its update.
        battery: level at its end, NaN without a battery.
        staleness: commits between dispatch and use, -1 if unused.
        down_bytes, up_bytes: charged to the links; serialized_*: of the tensors really serialised.
        flops, joules: used above idle; gross_joules: with the idle power of its time.
        rank, memory_plan: what it trained with.
        computed: whether its training was really computed, here and not on the virtual clock.
        examples, tokens: of its training data.
        loss: mean training loss, or what a polled client answered; NaN if nobody read it.
        loss_square: mean square of the losses, which Oort reads; NaN likewise.
        committed_version: the version that its update is in, -1 if in none.
    """

    order: int
    client: int
    visit: int
    version: int
    round: int
    dispatched_s: float
    downloaded_s: float
    trained_s: float
    landed_s: float
    ended_s: float
    outcome: Outcome
    away: Cause | Literal[""]
    paused_s: float
    work_share: float
    battery: float
    staleness: int
    down_bytes: int
    up_bytes: int
    serialized_down_bytes: int
    serialized_up_bytes: int
    flops: float
    joules: float
    gross_joules: float
    rank: int
    memory_plan: str
    computed: bool
    examples: int
    tokens: int
    loss: float
    loss_square: float
    committed_version: int


@dataclass(frozen=True, slots=True)
class CommitRow:
    """A server step.

    Attributes:
        version: the one it made; time_s: when; updates: how many it took.
        mean_staleness, max_staleness, up_bytes: of the updates it took.
        total_up_bytes, total_down_bytes, total_joules: of all visits that had ended when the server took these updates,
            lost ones included: at `time_s`, or before it where commits take time (`server.compute`), so that what comes
            in while the server works is in the totals of a later commit.
        update_norm: Euclidean length of the change of the adapter; mean_cosine: between pairs of updates;
            both NaN if nothing was trained.
    """

    version: int
    time_s: float
    updates: int
    mean_staleness: float
    max_staleness: int
    up_bytes: int
    total_up_bytes: int
    total_down_bytes: int
    total_joules: float
    update_norm: float
    mean_cosine: float


@dataclass(frozen=True, slots=True)
class ScoreRow:
    """One metric of one version on one split; `time_s` is of the version's commit."""

    version: int
    time_s: float
    split: str
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class PersonalRow:
    """What a client gains from a model of its own, on its own held-out part.

    Attributes:
        client: whose; kind: of personalisation, or the rule's if clients keep a part under it.
        unseen: whether the client was held out of the training; seen: its visits that are in the model.
        metric: what is compared; metric_global, metric_personal, metric_local: of the shared model, of its own,
            and of one trained on its data alone (NaN without one).
        gain: by how much its own model is better than the shared one, below 0 if it is worse.
        tokens: that were scored, 0 where the task counts none.
    """

    client: int
    kind: str
    unseen: bool
    seen: int
    metric: str
    metric_global: float
    metric_personal: float
    metric_local: float
    gain: float
    tokens: int


Row: TypeAlias = VisitRow | CommitRow | ScoreRow | PersonalRow
"""A row that is written while a run goes; clients are written all at once."""

ROWS: dict[str, type[Any]] = {
    "clients": ClientRow,
    "visits": VisitRow,
    "commits": CommitRow,
    "scores": ScoreRow,
    "personal": PersonalRow,
}
"""Table -> the class of its rows."""

_NAMES = {row: tuple(field.name for field in fields(row)) for row in ROWS.values()}
_VALUES: dict[type[Any], Callable[[Any], tuple[Any, ...]]] = {
    row: attrgetter(*names) for row, names in _NAMES.items()
}


def plain(row: Row) -> dict[str, Any]:
    """Return a row as column -> value."""
    return dict(zip(_NAMES[type(row)], _VALUES[type(row)](row), strict=True))
