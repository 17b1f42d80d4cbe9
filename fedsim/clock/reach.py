"""Can anybody ever land? Known before a run from bounds that no visit beats; what could land is never refused.

A visit cannot be shorter than its training at full speed on a cool device with the luckiest noise, and its bytes at
the full rate of its link, without round trips, headers or company. What may differ from visit to visit is left out:
bytes that hang on earlier commits or are private, rates that change, steps and slots that a protocol may cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

import numpy as np

from fedsim.aggregators._base import Offer
from fedsim.clock.components import Parts
from fedsim.config.experiment import Experiment
from fedsim.cost.work import Work
from fedsim.devices.availability import Availability
from fedsim.devices.compute import training
from fedsim.devices.population import Population
from fedsim.errors import ExperimentError, message
from fedsim.instants import in_time
from fedsim.network.base import MBPS
from fedsim.samplers._base import PollingSampler

LUCK = 8.5
"""Standard deviations that no draw of a normal number is away from its mean (once in 10^16 draws)."""
MOST_WINDOWS = 5_000_000
"""Windows up to which it is counted how many clients are online at once: sorting more takes seconds."""


class VisitWork(Protocol):
    """What a visit of a client computes, holds and sends: `fedsim.clock.plan.Plan.work`."""

    def __call__(
        self, client: int, offer: Offer | None, /, *, steps: int | None = None, rank: int | None = None
    ) -> Work:
        """Return the work of a visit of so many steps and slots; None: of a whole one."""
        ...


@dataclass(frozen=True)
class Candidates:
    """Who may be asked for what.

    Attributes:
        experiment, parts, population: of a candidates.
        work: of its visits.
        sends_nothing: an offer of which nothing travels.
    """

    experiment: Experiment
    parts: Parts
    population: Population
    work: VisitWork
    sends_nothing: Offer


def refuse_what_cannot_land(candidates: Candidates) -> None:
    """Raise if no version can ever be made.

    Raises:
        ExperimentError: too few clients have the memory, a window as long as a visit, or time until the deadline; or
            the protocol asks for more at once than are ever online together.
    """
    protocol, windows = candidates.parts.protocol, candidates.population.availability.plain
    most = _most_online(windows, protocol.clients_at_once)
    if not windows.constant and most < protocol.clients_at_once:
        what = f"asks for {protocol.clients_at_once} clients at once, and at most {most} are ever online together"
        fix = (
            f"ask for at most {most}, or take more clients"
            if most
            else "give windows in which clients are online"
        )
        raise ExperimentError(message("protocol", what, fix=fix))
    needed = protocol.least_updates
    if len(list(islice(_able(candidates), needed))) < needed:
        _refuse_memory(candidates, needed)
    if _deadline_s(candidates) < math.inf and len(list(islice(_in_time(candidates), needed))) < needed:
        _refuse_deadline(candidates, needed)
    loses = candidates.experiment.population.on_close == "lost" and not windows.constant
    if loses and len(list(islice(_in_a_window(candidates, windows), needed))) < needed:
        _refuse_windows(candidates, windows, needed)


# who could land ---------------------------------------------------------------------------------


def _able(candidates: Candidates) -> Iterator[int]:
    """Yield the clients whose memory holds the least that they may be asked for."""
    for client in range(len(candidates.population)):
        if (
            _least_work(candidates, client).memory_bytes
            <= candidates.population.profile(client).usable_memory_bytes
        ):
            yield client


def _in_time(candidates: Candidates) -> Iterator[int]:
    deadline_s = _deadline_s(candidates)
    return (client for client in _able(candidates) if in_time(shortest_s(candidates, client), deadline_s))


def _in_a_window(candidates: Candidates, windows: Availability) -> Iterator[int]:
    return (
        client
        for client in _able(candidates)
        if in_time(shortest_s(candidates, client), longest_window_s(windows, client))
    )


def _deadline_s(candidates: Candidates) -> float:
    deadline_s = candidates.parts.protocol.round_deadline_s
    return math.inf if deadline_s is None else deadline_s


def shortest_s(candidates: Candidates, client: int) -> float:
    """Return a time that no visit of a client is shorter than [s]."""
    experiment, profile, work = (
        candidates.experiment,
        candidates.population.profile(client),
        _least_work(candidates, client),
    )
    compute = experiment.compute.model_copy(
        update={"thermal": "none"}
    )  # a pause may be shorter than a throttled clock
    sigma = compute.step_sigma_of(profile.tier)
    luck = math.exp(-sigma * sigma / 2 - LUCK * sigma)
    seconds = training(profile, work, compute, noise=luck).duration_s
    if not _knows_bytes(candidates):
        return seconds
    network = experiment.network
    up_s = work.up_bytes / min(profile.up_bytes_per_s, network.server_down_mbps * MBPS)
    if isinstance(candidates.parts.sampler, PollingSampler):  # who was polled has the model already
        return seconds + up_s
    return seconds + up_s + work.down_bytes / min(profile.down_bytes_per_s, network.server_up_mbps * MBPS)


def _knows_bytes(candidates: Candidates) -> bool:
    """Tell whether all visits of a client send the same bytes over a link of one rate; a user's rule may do otherwise."""
    rule, personal = candidates.parts.aggregator, candidates.parts.personal
    ours = (
        ":" not in rule.kind
        and personal.kind == "none"
        and candidates.experiment.network.interrupted != "resume"
    )
    return ours and not (rule.traits.history or candidates.population.varying)


def _least_work(candidates: Candidates, client: int) -> Work:
    """Return the least that a visit of a client may be asked for: one step and one slot, unless visits are whole."""
    offer = None if _knows_bytes(candidates) else candidates.sends_nothing
    if candidates.parts.protocol.whole_visits and candidates.experiment.population.on_close != "partial":
        return candidates.work(client, offer)
    return candidates.work(client, offer, steps=1, rank=None if candidates.experiment.lora.full else 1)


def never_through(
    experiment: Experiment, parts: Parts, population: Population, client: int, n_bytes: int
) -> bool:
    """Tell whether a client's download is longer, alone at its link's full rate, than any stretch that it can have."""
    profile, deadline_s = population.profile(client), parts.protocol.round_deadline_s
    stretch_s = math.inf if deadline_s is None else deadline_s
    if experiment.population.on_close != "pause":
        stretch_s = min(stretch_s, longest_window_s(population.availability.plain, client))
    from_cdn = experiment.network.backbone_from == "cdn"
    server = math.inf if from_cdn else experiment.network.server_up_mbps * MBPS
    seconds = n_bytes / min(profile.down_bytes_per_s, server)
    return not population.varying and not in_time(seconds, stretch_s)


# who is online ----------------------------------------------------------------------------------


def longest_window_s(windows: Availability, client: int) -> float:
    """Return the length of a client's longest window [s]; 0 if it has none."""
    mine = slice(int(windows.offsets[client]), int(windows.offsets[client + 1]))
    return float(np.max(windows.stops_s[mine] - windows.starts_s[mine], initial=0.0))


def _most_online(windows: Availability, enough: int) -> int:
    """Return how many clients are online at once at most; all of them where `enough` is 1, or to count is too long."""
    first, end = windows.offsets[:-1], windows.offsets[1:]
    ever = int(np.count_nonzero(end > first))
    if enough <= 1 or windows.constant or len(windows.starts_s) > MOST_WINDOWS:
        return ever
    period_s, for_ever = windows.period_s, np.isinf(windows.stops_s)
    starts_s, stops_s = windows.starts_s[~for_ever], windows.stops_s[~for_ever]
    around = stops_s > period_s
    stops_s = np.where(around, stops_s - period_s, stops_s)
    at_s = np.concatenate([starts_s, stops_s])
    change = np.concatenate([np.ones(len(starts_s), np.int64), np.full(len(stops_s), -1, np.int64)])
    order = np.argsort(at_s, kind="stable")  # at one time openings come first: rather one too many
    running = np.cumsum(change[order])
    always = windows.starts_s[for_ever]
    if math.isfinite(period_s) or not len(always):
        return int(running.max(initial=0)) + int(around.sum()) + len(always)
    opened = np.searchsorted(np.sort(always), at_s[order], side="right")
    return max(int((running + opened).max(initial=0)), len(always))


# the words --------------------------------------------------------------------------------------


def _refuse_memory(candidates: Candidates, needed: int) -> None:
    needs = min(_least_work(candidates, client).memory_bytes for client in range(len(candidates.population)))
    has = float(np.max(candidates.population.columns()["usable_memory_bytes"]))
    what = f"the training needs {needs / 1e9:.3g} GB and the largest device may use {has / 1e9:.3g} GB: nobody can train"
    if needed > 1:
        what = f"a version needs {needed} updates, and fewer clients have the memory of {needs / 1e9:.3g} GB for one"
    fix = "train or charge a smaller model, set memory.when_short, or take larger devices"
    raise ExperimentError(message("population", what, fix=fix))


def _refuse_deadline(candidates: Candidates, needed: int) -> None:
    fastest_s = sorted(shortest_s(candidates, client) for client in _able(candidates))[needed - 1]
    who = (
        "the fastest client needs"
        if needed == 1
        else f"the fastest {needed} clients, which a version needs, take"
    )
    what = f"nobody can land in time: {who} {_seconds(fastest_s)} at least"
    fix = f"give more than {_seconds(fastest_s)}, or have visits do less"
    raise ExperimentError(message("protocol.deadline_s", what, got=_deadline_s(candidates), fix=fix))


def _refuse_windows(candidates: Candidates, windows: Availability, needed: int) -> None:
    visits = min(shortest_s(candidates, client) for client in _able(candidates))
    longest_s = max(longest_window_s(windows, client) for client in range(windows.n))
    what = (
        f"no window is as long as a visit (the longest has {_seconds(longest_s)}, and a visit takes "
        f"{_seconds(visits)} at least), and visits whose device goes offline are lost"
    )
    if needed > 1:
        what = (
            f"a version needs {needed} updates, and fewer clients have a window as long as a visit of theirs"
        )
    fix = "set population.on_close: pause, give longer windows, or have visits do less"
    raise ExperimentError(message("population.availability", what, fix=fix))


def _seconds(seconds: float) -> str:
    return f"{math.ceil(seconds)} s" if seconds >= 10 else f"{seconds:.3g} s"
