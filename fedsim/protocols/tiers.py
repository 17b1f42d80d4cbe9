"""Latency tiers: fast clients are not made to wait for slow ones (TiFL, FedAT)."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from fedsim.adapters.adapter import Vector
from fedsim.clock.protocol import (
    Blend,
    ServerProtocol,
    Steps,
    Verbs,
    cohort_problems,
    more_than_there_are,
    whole_visit_s,
)
from fedsim.clock.visit import Visit
from fedsim.config.fields import Count, CountOrZero, NonNegative
from fedsim.config.problem import Problem
from fedsim.errors import RunError, invalid, message
from fedsim.rng import stream


class Tiers(ServerProtocol):
    """Cut the clients into `tiers` by how long a visit would take them; each round asks within one tier.

    Before the first round every client's visit is estimated (`visit.estimate`); those whose memory it does
    not fit are never asked. The rest, sorted by that time, are cut into tiers of equal size. A round asks
    `cohort` clients of one tier (all of it where it is smaller) and waits for all of them.

    `across: turns` (TiFL: Chai et al., HPDC 2020, arXiv 2001.09249): one tier at a time, drawn with
    `probabilities`: `uniform`, weights from the fastest tier to the slowest, or `adaptive` (algorithm 2): every
    `interval` rounds, if the tier of the last round has not improved since the look before (`adapt: stalled`; `always`:
    whether it has or not), of the n tiers that have credits left the one with the i-th highest loss (i = 0, 1, ...) gets
    (n - i) / (n (n + 1) / 2). The paper looks at accuracies on a test set of each tier; the server here looks
    at what has landed: the mean training loss of a tier's last round; a tier never asked ranks as the highest, and one
    of which nothing was known at the look before has improved. A tier may be drawn `credits` times (one number, or one a
    tier); once all are used up they are given out again, which the paper does not do, and the chances are made anew.

    `across: asynchronous` (FedAT: Chai et al., SC 2021, arXiv 2010.05958): every tier runs its own rounds,
    all at the same time. A tier's model w_m is what the rule makes of the model that the tier was sent. After a round of any
    tier, with T_m rounds of tier m so far (1 the fastest of M) and T their sum, the shared model is

        w = sum_m (T_(M+1-m) / T) w_m

    so that a tier counts as much as its mirror image has done: tiers that update seldom weigh more. A tier
    has weight zero until its mirror image has made a round; `prior` is added to every T_m (0 in the paper).
    To the model that their tier was sent nobody is stale, so rules discount nothing. The paper's local objective
    has lambda/2 |w_k - w|^2 besides: `local.prox_mu`. `max_staleness` drops a tier's round if other tiers have made
    more versions since its dispatch (outcome `stale`).

    Attributes:
        tiers: how many; equal in size.
        cohort: clients asked in a round.
        across: one tier at a time (`turns`, TiFL), or all at once (`asynchronous`, FedAT).
        probabilities: of the tiers, with `turns`: `uniform`, `adaptive`, or weights from the fastest to the
            slowest.
        interval: rounds between two looks, with `adaptive`.
        adapt: when chances are made anew, with `adaptive`: if the tier has `stalled`, or `always`.
        credits: how often a tier may be drawn, one number or one a tier; None: without end.
        prior: added to every tier's count of rounds, with `asynchronous`.
        max_staleness: versions made since its dispatch beyond which a round is dropped, with `asynchronous`;
            None: never.
    """

    kind: Literal["tiers"] = "tiers"
    tiers: Count = 5
    cohort: Count = 10
    across: Literal["turns", "asynchronous"] = "turns"
    probabilities: Literal["uniform", "adaptive"] | tuple[NonNegative, ...] = "uniform"
    interval: Count = 20
    adapt: Literal["stalled", "always"] = "stalled"
    credits: Count | tuple[CountOrZero, ...] | None = None
    prior: NonNegative = 0.0
    max_staleness: CountOrZero | None = None

    @model_validator(mode="after")
    def _lists_of_tiers(self) -> Tiers:
        for name in ("probabilities", "credits"):
            choice = getattr(self, name)
            if isinstance(choice, tuple) and len(choice) != self.tiers:
                raise invalid(f"`{name}` has {len(choice)} entries for {self.tiers} tiers")
            if isinstance(choice, tuple) and not any(choice):
                raise invalid(f"`{name}` leaves no tier to draw")
        odds, credits_left = self._first_weights(), self._credits()
        if not any(p and c for p, c in zip(odds, credits_left, strict=True)):
            raise invalid("no tier has both a probability and credits")
        return self

    @model_validator(mode="after")
    def _one_way_across(self) -> Tiers:
        turns = self.across == "turns"
        for name in (
            ("prior", "max_staleness") if turns else ("probabilities", "interval", "adapt", "credits")
        ):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise invalid(f"`{name}` has no meaning with `across: {self.across}`")
        return self

    @property
    def stale(self) -> bool:
        """Whether updates may be stale: other tiers commit meanwhile."""
        return self.across == "asynchronous"

    @property
    def blends(self) -> bool:
        """Whether it makes the shared model of several: the tiers'."""
        return self.across == "asynchronous"

    @property
    def reads_values(self) -> bool:
        """Whether losses decide whom to ask."""
        return self.probabilities == "adaptive"

    @property
    def clients_at_work(self) -> int:
        """The cohort, of each tier if they are asked side by side."""
        return self.cohort * (self.tiers if self.across == "asynchronous" else 1)

    @property
    def updates_per_commit(self) -> int:
        """The cohort, if all of it lands."""
        return self.cohort

    @property
    def whole_visits(self) -> bool:
        """Always."""
        return True

    def problems(self, clients: int) -> list[Problem]:
        """Return what is larger than the population."""
        larger = f"is more than there are clients ({clients})"
        return [
            *cohort_problems(self.cohort, clients),
            *more_than_there_are("tiers", self.tiers, clients, larger),
        ]

    def run(self, server: Verbs) -> Steps:
        """Run rounds for ever; the server's budget ends them."""
        held_out = set(server.held_out)
        expected_s = [
            math.inf if client in held_out else whole_visit_s(server, client)
            for client in range(server.clients)
        ]
        pools = latency_tiers(expected_s, self.tiers)
        yield from (self._turns if self.across == "turns" else self._asynchronous)(server, pools)

    def _round(
        self, server: Verbs, pool: NDArray[np.int64], numbers: Iterator[int]
    ) -> Generator[Any, Any, tuple[Vector, list[Visit]]]:
        """Return the model that was sent and the visits that have landed."""
        clients = yield from server.sample(min(self.cohort, len(pool)), among=pool)
        sent, round_ = server.vector, next(numbers)
        visits = [server.dispatch(client, round_) for client in clients]
        yield from server.wait(visits, want=len(visits))
        return sent, server.collect(visits, want=len(visits))

    def _turns(self, server: Verbs, pools: Sequence[NDArray[np.int64]]) -> Steps:
        losses, looked_at = [math.nan] * self.tiers, [math.nan] * self.tiers
        weights, tier = self._first_weights(), 0
        left, numbers = self._credits(), count()
        for round_ in count():
            used_up = not any(w > 0 and c > 0 for w, c in zip(weights, left, strict=True))
            if used_up:
                left = self._credits()
            if self.probabilities == "adaptive" and round_ and (used_up or round_ % self.interval == 0):
                if used_up or self.adapt == "always" or losses[tier] >= looked_at[tier]:
                    weights = adaptive_probabilities(losses, left)
                looked_at = list(losses)
            rng = stream(server.seed, "tier", round_)
            tier = draw_tier(weights, left, rng)
            left[tier] -= 1
            _, landed = yield from self._round(server, pools[tier], numbers)
            if landed:
                server.commit(landed)
                losses[tier] = mean_loss(landed, losses[tier])

    def _first_weights(self) -> list[float]:
        choice = self.probabilities
        return list(choice) if isinstance(choice, tuple) else [1.0 / self.tiers] * self.tiers

    def _credits(self) -> list[float]:
        choice = self.credits
        if isinstance(choice, tuple):
            return [float(c) for c in choice]
        return [math.inf if choice is None else float(choice)] * self.tiers

    def _asynchronous(self, server: Verbs, pools: Sequence[NDArray[np.int64]]) -> Steps:
        models = TierModels(server.vector, self.tiers, self.prior)
        numbers = count()

        def rounds_of(tier: int) -> Steps:
            while True:
                sent, landed = yield from self._round(server, pools[tier], numbers)
                landed = server.fresh(landed, self.max_staleness)
                if landed:
                    server.commit(landed, blend=Blend(sent, partial(models.mixed, tier), models))

        yield server.all_of([server.process(rounds_of(tier)) for tier in range(self.tiers)])


class TierModels:
    """The tiers' models, and the shared one that is made of them."""

    def __init__(self, vector: Vector, tiers: int, prior: float) -> None:
        """Begin with the model of version 0 in every tier."""
        self._models = [vector.astype(np.float64)] * tiers
        self._rounds = [0] * tiers
        self._prior = prior

    def mixed(self, tier: int, _taken: Sequence[Visit], model: Vector) -> Vector:
        """Take in a round's model of a tier; return the shared one."""
        self._models[tier] = model.astype(np.float64)
        self._rounds[tier] += 1
        shares = mirrored_shares(self._rounds, self._prior)
        mixed = sum(share * model for share, model in zip(shares, self._models, strict=True))
        return np.asarray(mixed, dtype=np.float32)

    def dump(self) -> object:
        """Return the models and the rounds of all tiers."""
        return list(self._models), list(self._rounds)

    def load(self, data: tuple[list[NDArray[np.float64]], list[int]]) -> None:
        """Go on from these."""
        self._models, self._rounds = list(data[0]), list(data[1])


def latency_tiers(expected_s: Sequence[float], tiers: int) -> list[NDArray[np.int64]]:
    """Return the clients of each tier, the fastest tier first, ids ascending inside each.

    Sizes differ by at most one, the faster tiers being the larger; equal times go by client id.

    Args:
        expected_s: time of one visit of client 0, 1, ...; inf for a client that is not to be asked.
        tiers: how many.

    Raises:
        RunError: fewer clients than tiers can be asked.

    >>> [tier.tolist() for tier in latency_tiers([5.0, 1.0, 3.0, float("inf"), 2.0], 2)]
    [[1, 4], [0, 2]]
    """
    times = np.asarray(expected_s, dtype=np.float64)
    order = np.argsort(times, kind="stable")
    order = order[np.isfinite(times[order])]
    if len(order) < tiers:
        what = f"{tiers} tiers need as many clients whose memory holds the training; there are {len(order)}"
        fix = f"set protocol.tiers to at most {max(1, len(order))}, or charge a smaller model"
        raise RunError(message("protocol.tiers", what, got=tiers, fix=fix))
    return [np.sort(tier) for tier in np.array_split(order, tiers)]


def mean_loss(visits: Sequence[Visit], before: float) -> float:
    """Return the mean loss of the updates that a commit has taken; `before` if it has refused all."""
    losses = [visit.loss for visit in visits if visit.outcome == "landed" and math.isfinite(visit.loss)]
    return float(np.mean(losses)) if losses else before


def adaptive_probabilities(losses: Sequence[float], credits_left: Sequence[float]) -> list[float]:
    """Return (n - i) / (n (n + 1) / 2) for the tier with the i-th highest loss of n that have credits.

    NaN is a tier of which nothing is known: it counts as the highest loss. Equal losses: faster tier first.

    >>> adaptive_probabilities([0.5, 2.0, 1.0], [1, 1, 1])
    [0.16666666666666666, 0.5, 0.3333333333333333]
    """
    having = [tier for tier, left in enumerate(credits_left) if left > 0]
    ranked = sorted(having, key=lambda tier: (not math.isnan(losses[tier]), -losses[tier], tier))
    n = len(ranked)
    probabilities = [0.0] * len(losses)
    for i, tier in enumerate(ranked):
        probabilities[tier] = (n - i) / (n * (n + 1) / 2)
    return probabilities


def draw_tier(weights: Sequence[float], credits_left: Sequence[float], rng: np.random.Generator) -> int:
    """Return a tier drawn in proportion to its weight, among those with credits left."""
    able = np.array([w if left > 0 else 0.0 for w, left in zip(weights, credits_left, strict=True)])
    return int(rng.choice(len(able), p=able / able.sum()))


def mirrored_shares(rounds: Sequence[int], prior: float = 0.0) -> list[float]:
    """Return FedAT's weight of each tier's model: the share of the rounds that its mirror image has made.

    >>> mirrored_shares([6, 3, 1])
    [0.1, 0.3, 0.6]
    """
    counts = [n + prior for n in reversed(rounds)]
    return [n / sum(counts) for n in counts]
