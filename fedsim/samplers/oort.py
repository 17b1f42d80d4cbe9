"""Oort: clients that are useful and fast (Lai et al., OSDI 2021, arXiv 2010.06081)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from fedsim.arrays import Floats
from fedsim.config.fields import AtLeastOne, Count, NonNegative
from fedsim.elementary import power
from fedsim.samplers._base import Sampler
from fedsim.samplers.seen import Counts, Seen

Share = Annotated[float, Field(ge=0, le=1)]


class Oort(Sampler):
    """Choose the tried clients of highest utility, and some that were never tried.

    The utility of client i, whose last committed update was in commit L_i, at round R = commits + 1
    (section 4.2 and 4.3, equation 1; the order of the operations is that of the authors' code):

        S_i = n_i sqrt(mean over tokens of loss^2)                        statistical utility
        speed_i = (T / t_i)^alpha if t_i > T, else 1
        U_i = ((min(S_i, clip) - S_min) / max(S_max - S_min, 1e-4) + sqrt(ucb ln R / L_i)) * speed_i

    over the tried clients to choose from, with n_i examples, S_max the largest S, S_min 0.999 times the smallest
    (the authors' code: `get_norm`), and t_i the duration of i's last landed visit, or for one that has landed none, the
    duration it is expected to have. T is the preferred duration: the `pacer_percentile`-th percentile of the t of
    all clients. Losses are per token, not per sequence, and a mean over each client's tokens: else long
    documents dominate. The square is that of the mean loss of each training batch, which is what a
    language model's client reports in the authors' code.

    Of n clients, epsilon n are explored, while there are any who have never landed a committed update. `explore_by:
    speed` (algorithm 1, line 16, and the authors' code) draws them with chances in proportion to n_i speed_i, among
    the `explore_window` times as many for whom that is largest; `chance` draws with equal chances. The others are
    exploited: drawn, with chances in proportion to U, among the tried clients whose utility is at least `cut_off` times
    that of the n (1 - epsilon)-th best. epsilon = max(`explore` * `explore_decay`^(R - 1), `explore_min`).

    The pacer: every `pacer_rounds` commits, if the sum over the last `pacer_rounds` of the mean S of the exploited
    clients of each commit differs by at most a tenth from that over the ones before, the percentile rises by
    `pacer_step` (slower clients are tolerated: the fast ones have no more to give); if it has changed more than
    fivefold, it falls by as much (the authors' code; the paper has the first half, algorithm 1, lines 6-8).

    It differs from the authors' code in this: fractions of a client are rounded by chance, not down, so that servers
    that ask for one client at a time explore too; epsilon falls with commits, not with choices, and the first
    choice has `explore` itself; S_min and S_max leave out clients that were never tried, for whom the code has their
    number of examples in place of S; exploited is who had been committed before; a black list, off there, is not here.

    It sees landed information only. The timeline of a run with it depends on the losses.

    Attributes:
        alpha: exponent of the system penalty; 0: speed does not count. 2 (paper, section 7.1; code).
        explore, explore_decay, explore_min: epsilon: 0.9, 0.98, 0.2 (paper, section 7.1; the authors' code
            decays by 0.95, FedScale stops at 0.3).
        cut_off: 0.95 (paper, section 4.3; the authors' code has 0.7, FedScale 0.05).
        explore_by: `speed` as published, or `chance`.
        explore_window: candidates for each explored client: 5 (the authors' code).
        clip: quantile of S above which it counts no more: 0.95 (paper, section 4.4; the code has 0.98).
        ucb: weight of the temporal uncertainty: 0.1 (paper, equation 1; code).
        pacer_rounds: 20 (paper, section 7.1; code).
        pacer_step: in percentiles: 5 (code; the paper counts in seconds).
        pacer_percentile: where T begins: 30 (FedScale; the authors' code begins at 10). 100: no duration is too
            long.
    """

    kind: Literal["oort"] = "oort"
    reads_values: ClassVar[bool] = True
    alpha: NonNegative = 2.0
    explore: Share = 0.9
    explore_decay: Share = 0.98
    explore_min: Share = 0.2
    explore_by: Literal["speed", "chance"] = "speed"
    explore_window: AtLeastOne = 5.0
    cut_off: Share = 0.95
    clip: Annotated[float, Field(gt=0, le=1)] = 0.95
    ucb: NonNegative = 0.1
    pacer_rounds: Count = 20
    pacer_step: Annotated[float, Field(ge=0, le=100)] = 5.0
    pacer_percentile: Annotated[float, Field(gt=0, le=100)] = 30.0

    def choose(self, idle: Counts, n: int, rng: np.random.Generator, seen: Seen) -> Counts:
        """Return n different clients of `idle` (length >= n): the exploited, then the explored."""
        tried = seen.reported[idle] > 0
        known, new = idle[tried], idle[~tried]
        explored = min(_rounded(self.epsilon(seen.version) * n, rng), len(new))
        explored = max(explored, n - len(known))  # too few are known: the rest is explored
        best = self._exploited(known, n - explored, rng, seen)
        return np.concatenate([best, self._explored(new, explored, rng, seen)])

    def epsilon(self, version: int) -> float:
        """Return the share of explored clients after so many commits."""
        return max(self.explore * self.explore_decay**version, self.explore_min)

    def utility(self, clients: Counts, seen: Seen) -> Floats:
        """Return U of tried clients (clients,), at least 0."""
        if not len(clients):
            return np.zeros(0)
        useful = seen.examples[clients] * np.sqrt(np.nan_to_num(seen.square[clients], nan=0.0))
        low, high = 0.999 * useful.min(), useful.max()
        clip = np.sort(useful)[min(int(len(useful) * self.clip), len(useful) - 1)]
        scaled = (np.minimum(useful, clip) - low) / max(high - low, 1e-4)
        uncertain = np.sqrt(self.ucb * math.log(seen.version + 1) / seen.last_version[clients])
        utility: Floats = (scaled + uncertain) * self.speed(clients, seen)
        return utility

    def speed(self, clients: Counts, seen: Seen) -> Floats:
        """Return the system penalty (T / t)^alpha of each client, 1 for those that are fast enough."""
        percentile = self.percentile(seen.exploited_gains)
        if percentile >= 100:
            return np.ones(len(clients))
        times_s = np.where(np.isnan(seen.duration_s), seen.expected_s, seen.duration_s)
        preferred_s = np.sort(times_s)[min(int(len(times_s) * percentile / 100), len(times_s) - 1)]
        if not math.isfinite(preferred_s):
            return np.ones(len(clients))
        return power(np.minimum(preferred_s / np.maximum(times_s[clients], 1e-4), 1.0), self.alpha)

    def percentile(self, gains: Sequence[float]) -> float:
        """Return where the pacer is after these commits.

        Args:
            gains: mean statistical utility of the exploited clients of each commit, `Seen.exploited_gains`.
        """
        w, percentile = self.pacer_rounds, self.pacer_percentile
        for end in range(2 * w, len(gains) + 1, w):
            before, now = sum(gains[end - 2 * w : end - w]), sum(gains[end - w : end])
            if abs(now - before) <= 0.1 * before:
                percentile = min(100.0, percentile + self.pacer_step)
            elif abs(now - before) >= 5 * before:
                percentile = max(min(self.pacer_step, percentile), percentile - self.pacer_step)
        return percentile

    def eligible(self, utility: Floats, n: int) -> NDArray[np.bool_]:
        """Return who may be exploited: at least `cut_off` of the n-th best utility. There are n of them at least.

        The published code compares with the (n + 1)-th, and fails when there are n clients in all.
        """
        bar = np.sort(utility)[len(utility) - n]
        return np.asarray(utility >= self.cut_off * bar)

    def _explored(self, new: Counts, n: int, rng: np.random.Generator, seen: Seen) -> Counts:
        if self.explore_by == "chance" or n == 0:
            return rng.choice(new, size=n, replace=False)
        worth = seen.examples[new] * self.speed(new, seen)
        window = np.argsort(-worth, kind="stable")[: max(n, int(self.explore_window * n))]
        new, worth = new[window], worth[window]
        useful = np.flatnonzero(worth > 0)
        if len(useful) <= n:  # who is worth nothing is asked only if there is nobody else
            return new[:n]
        return rng.choice(new, size=n, replace=False, p=worth / worth.sum())

    def _exploited(self, known: Counts, n: int, rng: np.random.Generator, seen: Seen) -> Counts:
        if n == 0:
            return np.zeros(0, dtype=np.int64)
        utility = self.utility(known, seen)
        among = self.eligible(utility, n)
        known, utility = known[among], utility[among]
        useful = np.flatnonzero(utility > 0)
        if len(useful) < n:  # the others are all worth nothing: any of them will do
            nothing = rng.choice(np.flatnonzero(utility <= 0), size=n - len(useful), replace=False)
            return np.concatenate([known[useful], known[nothing]])
        return rng.choice(known, size=n, replace=False, p=utility / utility.sum())


def _rounded(x: float, rng: np.random.Generator) -> int:
    """Return x rounded by chance so that its mean is x; chance is asked only if there is a fraction."""
    whole = math.floor(x + 1e-9)
    return whole + int(x - whole > 1e-9 and rng.random() < x - whole)
