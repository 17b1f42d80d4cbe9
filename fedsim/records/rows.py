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
        client: its number, from 0; device: its row in the table of devices; tier: that row's class, such as `phone-mid`;
            network: its row in the table of networks.
        rank: of its adapter, 0 where whole models are trained.
        flops_per_s: effective speed of its training [FLOP/s].
        memory_bytes: what its device has; usable_memory_bytes: what training may use of it; needed_memory_bytes: what
            training at its rank takes, as `memory_plan` has it.
        memory_plan: how its training fits into the memory, in words.
        idle_w: what it draws without our work [W].
        down_bytes_per_s: mean rate of its link, down; up_bytes_per_s: the same, up; rtt_s: round trip of its link.
        online_share: share of time in which its windows are open.
        examples: that a whole visit trains on; tokens: the same, or what is charged for them (`tokens_per_visit`).
        visit_flops: of the training of a whole visit at its own rank [FLOP].
        train_w: what it draws while it trains, idle power included [W].
        down_radio_w: power of its radio in a download at no load, above idle; up_radio_w: the same in an upload;
            down_radio_j_per_byte: what each byte takes on top, down; up_radio_j_per_byte: the same, up.
        tail_w: power of a radio that stays up after a transfer; tail_s: how long it stays up.
        framing: bytes on its link per byte of payload.
        battery_wh: capacity of its row in the table of devices, 0 without one.
        cpu_quota: share of a processor that it is, 1: all of it; cpu_period_s: how often that share is given out.
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
        order: its place among all dispatches of the run, from 0; client: who was asked; visit: how many times that
            client was asked before.
        version: of the model that was sent; round: of the protocol, -1 without rounds.
        dispatched_s: virtual instant at which it was asked; downloaded_s: instant at which it had the model, NaN if it never had;
            trained_s: instant at which it had trained, on its device, NaN if it never had; landed_s: instant at which its update had arrived, NaN
            if it never did; ended_s: instant at which its fate was final.
        outcome: how it ended, one of `OUTCOMES`; away: why its device went away last (`window`, `outage`, `battery`,
            `heat`), empty if it never did.
        paused_s: how long its device was away while it waited; work_share: share of its steps in its update.
        battery: level at its end, NaN without a battery.
        staleness: commits between dispatch and use, -1 if unused.
        down_bytes: charged to its downlink; up_bytes: charged to its uplink; serialized_down_bytes: of the tensors that really
            went down, serialised; serialized_up_bytes: of those that came up, serialised.
        flops: of its training, as far as it came; joules: used above idle; gross_joules: with the idle power of its time.
        rank: that it trained with; memory_plan: how it fitted into the memory, in words.
        computed: whether its training was really computed, here and not on the virtual clock.
        examples: of the client, whatever part of them the visit used; tokens: of a whole visit, or what was charged for them.
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
        version: the one it made; time_s: virtual instant at which that was ready; updates: how many it took.
        mean_staleness: of the updates it took; max_staleness: the largest of them; up_bytes: of the updates it took.
        total_up_bytes: of all visits that had ended when the server took these updates, lost ones included;
            total_down_bytes: the same, down; total_joules: the same, above idle. Where commits take time
            (`server.compute`) that is before `time_s`: what comes in while the server works is in a later commit's totals.
        update_norm: Euclidean length of the change of the adapter, NaN if nothing was trained; mean_cosine: of
            the updates to their mean, so 1 / sqrt(n) for n that have nothing in common, NaN likewise.
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
    """One metric of one version on one split.

    Attributes:
        version: that was scored; time_s: when it was committed, 0 for version 0.
        split: on which data: `test`, `valid`, `clients`, `samples`, `answers`.
        metric: its name; value: its value, a mean over the split.
    """

    version: int
    time_s: float
    split: str
    metric: str
    value: float


@dataclass(frozen=True, slots=True)
class PersonalRow:
    """What a client gains from a model of its own, on its own held-out part.

    Attributes:
        client: who; kind: of personalisation, or the rule's if clients keep a part under it.
        unseen: whether the client was held out of the training; seen: its visits that are in the model.
        metric: what is compared; metric_global: its value of the shared model; metric_personal: of the client's own;
            metric_local: of one trained on its data alone, NaN without one.
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
