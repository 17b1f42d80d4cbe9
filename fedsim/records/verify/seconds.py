"""Seconds, bytes and FLOPs of phases, computed again from a client's row: a second arithmetic, written apart.

Exact where each link is a client's own at a constant rate and no pause interrupts the visit; training where its seconds
are FLOPs over speed, or follow from the law of the client's software, stretched by a CPU quota. Where the settings say otherwise only bounds are left, and where they
have keys that are not known here nothing is said of that phase.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from fedsim.arrays import Bools, Floats
from fedsim.records.run import Run
from fedsim.records.verify.books import Books, close_to
from fedsim.records.verify.invariants import Invariant
from fedsim.records.verify.laws import whole_visit_s

BYTES_PER_S = 1e6 / 8  # of one Mbit/s
WINDOW_BYTES = 15_000.0  # RFC 6928: ten packets of 1,500 bytes
SHORTEST_S = 1e-6
MOST_ROUNDS = 64  # a window that has doubled so often is larger than any path

NETWORK: Mapping[str, tuple[object, ...]] = {
    "sharing": ("private",),
    "loss": (0, 0.0),
    "connection": ("new", None),
    "interrupted": ("restart", None),
    "loss_bursts": (None,),
    "tls": (None,),
    "backbone_from": ("server", None),
}
COMPUTE: Mapping[str, tuple[object, ...]] = {
    "step_sigma": (0, 0.0),
    "step_overhead_s": (0, 0.0),
    "bandwidth_floor": (False,),
    "codecs": (False, None),
    "thermal": ("none",),
}
"""Settings with which the closed forms hold."""
KNOWN = {
    "network": {
        *("server_up_mbps", "server_down_mbps", "sharing", "model", "congestion", "loss", "backbone"),
        *("detect_after_s", "connection", "keep_alive_s", "interrupted"),
        *("loss_bursts", "tls", "backbone_from"),
    },
    "compute": {
        *("flops", "calibration", "stack", "unit_sigma", "step_sigma", "step_overhead_s", "bandwidth_floor"),
        *("dequantisation", "codecs", "thermal", "stacks", "uncertainty", "uncertainty_draw", "app"),
    },
}
"""Keys that were known when these forms were written; another one may change what they say."""


def plain_network(books: Books) -> bool:
    """Tell whether each transfer has its own link of constant rate."""
    block = books.block("population")
    constant = block.get("rates") == "constant" and block.get("links", "one") == "one"
    return constant and _plain(books, "network", NETWORK)


def plain_compute(books: Books) -> bool:
    """Tell whether training takes FLOPs over speed, or the time of the client's software, and nothing else."""
    return _plain(books, "compute", COMPUTE)


def stacked(books: Books) -> bool:
    """Tell whether devices and their software are told apart."""
    return "stacks" in books.run.info.population


def _plain(books: Books, name: str, wanted: Mapping[str, tuple[object, ...]]) -> bool:
    block = books.block(name)
    return set(block) <= KNOWN[name] and all(block.get(key) in values for key, values in wanted.items())


# transfers --------------------------------------------------------------------------------------


def tcp_s(n_bytes: Floats, rate: Floats, rtt_s: Floats, framing: Floats) -> Floats:
    """Return the seconds of transfers: bytes on the wire over the rate, 1.5 round trips, and slow start.

    Args:
        n_bytes: payloads, (k,).
        rate: of the slowest part of each path [bytes/s], (k,).
        rtt_s: round trips, (k,).
        framing: bytes on the wire per byte of payload, (k,).
    """
    wire, waited_s = n_bytes * framing, np.zeros(len(n_bytes))
    window, sent = np.full(len(n_bytes), WINDOW_BYTES), np.full(len(n_bytes), WINDOW_BYTES)
    for _ in range(MOST_ROUNDS):
        waits = (window < rate * rtt_s) & (wire - sent > 1e-6)
        if not waits.any():
            break
        waited_s = waited_s + np.where(waits, rtt_s - window / rate, 0.0)
        window = np.where(waits, 2 * window, window)
        sent = np.where(waits, sent + window, sent)
    seconds = wire / rate + 1.5 * rtt_s + waited_s
    return np.where(n_bytes > 0, np.maximum(seconds, SHORTEST_S), 0.0)


def tcp_bytes(elapsed_s: Floats, rate: Floats, rtt_s: Floats, framing: Floats) -> Floats:
    """Return the payload that can have left a sender at most, `elapsed_s` after it began, (k,)."""
    left_s, sent = elapsed_s - rtt_s, np.zeros(len(elapsed_s))
    window = np.full(len(elapsed_s), WINDOW_BYTES)
    for _ in range(MOST_ROUNDS):
        goes_on = (window < rate * rtt_s) & (left_s > rtt_s)
        if not goes_on.any():
            break
        sent = sent + np.where(goes_on, window, 0.0)
        left_s = np.where(goes_on, left_s - rtt_s, left_s)
        window = np.where(goes_on, 2 * window, window)
    burst = np.maximum(left_s, 0.0) * rate
    burst = np.where(window < rate * rtt_s, np.minimum(burst, window), burst)
    return np.asarray((sent + burst) / framing)


@dataclass(frozen=True)
class _Side:
    """One direction: its name, the instants at which it begins and is done, and the server's rate in the settings."""

    name: str
    began: str
    done: str
    server: str

    def path(self, books: Books) -> tuple[Floats, Floats, Floats]:
        """Return rate [bytes/s], round trip [s] and framing of each visit's path, (visits,) each."""
        rate = books.of_client(f"{self.name}_bytes_per_s")
        limit = (books.number("network", self.server) or np.inf) * BYTES_PER_S
        naive = books.block("network").get("model") != "tcp"
        rtt_s, framing = books.of_client("rtt_s"), books.of_client("framing")
        return np.minimum(rate, limit), rtt_s * (not naive), np.ones(len(rate)) if naive else framing

    def instants(self, books: Books) -> tuple[Floats, Floats]:
        """Return when it began and was done, NaN where it never came to that [s], (visits,) each."""
        began, done = (books.visits[name].to_numpy(dtype=float) for name in (self.began, self.done))
        return began, done

    def took_otherwise(self, books: Books) -> Bools:
        """Find transfers that took other seconds than their bytes need."""
        if not plain_network(books):
            return books.nothing
        needed_s = tcp_s(books.visits[f"{self.name}_bytes"].to_numpy(dtype=float), *self.path(books))
        began_s, done_s = self.instants(books)
        whole = ~np.isnan(done_s) & ~np.isnan(needed_s) & books.unpaused
        return np.asarray(whole & ~close_to(done_s - began_s, needed_s, done_s))

    def moved_otherwise(self, books: Books) -> Bools:
        """Find transfers that were broken off with other bytes than their seconds move."""
        if not plain_network(books):
            return books.nothing
        v, (began_s, done_s) = books.visits, self.instants(books)
        most = tcp_bytes(v["ended_s"].to_numpy(dtype=float) - began_s, *self.path(books))
        broken_off = np.isnan(done_s) & ~np.isnan(began_s) & books.unpaused
        moved = v[f"{self.name}_bytes"].to_numpy(dtype=float)
        least = np.minimum(most - 2.0, v[f"serialized_{self.name}_bytes"].to_numpy(dtype=float))
        exact = books.preinstalled and not books.as_another
        return np.asarray(broken_off & ((moved > most + 1.0) | (exact & (moved < least))))

    def rules(self) -> tuple[Invariant, Invariant]:
        """Return what holds for this direction."""
        column, began, done = f"{self.name}_bytes", self.began, self.done
        return (
            Invariant(
                f"whole transfers {self.name} take the seconds of their bytes",
                self.took_otherwise,
                lambda r: (
                    f"has {done} {r[done] - r[began]:.9g} s after {began}, which {r[column]} {column} do not take"
                ),
            ),
            Invariant(
                f"transfers {self.name} that were broken off moved what they could",
                self.moved_otherwise,
                lambda r: f"has {column} {r[column]}, which its link does not move from {began} to ended_s",
            ),
        )


# training ---------------------------------------------------------------------------------------


def full_speed_s(books: Books) -> tuple[Floats, Bools]:
    """Return the seconds of each visit's FLOPs on its device at full speed, its CPU quota counted, and whether they are all of it.

    With software told apart they are where the visit is a whole one at the client's own rank whose law is known; elsewhere
    FLOPs over speed, which is a bound from below. (visits,) each.
    """
    flops = books.visits["flops"].to_numpy(dtype=float)
    cpu_s, exact = flops / books.of_client("flops_per_s"), ~books.nothing
    if stacked(books):
        law_s = _law_s(books)
        exact = ~np.isnan(law_s) & np.isclose(flops, books.of_client("visit_flops"), rtol=1e-9)
        cpu_s = np.where(exact, law_s, cpu_s)
    quota, period_s = books.of_client("cpu_quota"), books.of_client("cpu_period_s")
    with np.errstate(invalid="ignore", divide="ignore"):
        pauses = np.maximum(np.ceil(cpu_s / (quota * period_s) * (1 - 1e-12)) - 1, 0)
    return np.where(quota < 1, cpu_s + pauses * (1 - quota) * period_s, cpu_s), exact


def _law_s(books: Books) -> Floats:
    """Return what a whole visit of each visit's client trains by its law, NaN where that is not known, (visits,)."""
    alone = books.block("personal").get("kind") in ALONE
    of_client = books.known.once("whole_visit_s", _of_clients)
    law_s = books.visits["client"].map(of_client).to_numpy(dtype=float)
    as_planned = books.own_rank & (books.visits["memory_plan"] == books.visits["client_memory_plan"])
    return np.where(as_planned.to_numpy() & alone, law_s, np.nan)


def _of_clients(run: Run) -> pd.Series[Any]:
    found = pd.Series(whole_visit_s(run), run.clients["client"])
    return found[~found.index.duplicated()]


def _trained_otherwise(books: Books) -> Bools:
    v = books.visits
    trained_s = v["trained_s"].to_numpy(dtype=float)
    took_s, (needed_s, exact) = trained_s - v["downloaded_s"].to_numpy(dtype=float), full_speed_s(books)
    whole = ~np.isnan(took_s) & ~np.isnan(needed_s) & books.unpaused & (v["work_share"].to_numpy() == 1)
    exact &= plain_compute(books)
    noisy = books.block("compute").get("step_sigma") not in (0, 0.0)
    known = set(books.block("compute")) <= KNOWN["compute"] and "compute" in books.run.experiment
    sooner = (took_s < needed_s - 1e-6 - 1e-9 * needed_s) & known & (not noisy)
    return np.asarray(whole & np.where(exact, ~close_to(took_s, needed_s, trained_s), sooner))


def _computed_otherwise(books: Books) -> Bools:
    """Find trainings that were broken off with other FLOPs than their seconds give."""
    v = books.visits
    if not plain_compute(books):
        return books.nothing
    elapsed_s = v["ended_s"].to_numpy(dtype=float) - v["downloaded_s"].to_numpy(dtype=float)
    possible = elapsed_s * books.of_client("flops_per_s")
    if stacked(books):
        whole = books.block("protocol").get("kind") in WHOLE_VISITS
        possible = books.of_client("visit_flops") * elapsed_s / _law_s(books) if whole else elapsed_s * np.nan
    under_way = v["trained_s"].isna().to_numpy() & v["downloaded_s"].notna().to_numpy() & books.unpaused
    under_way &= (v["outcome"] != "memory").to_numpy() & ~books.small_memory.to_numpy()
    under_way &= (books.of_client("cpu_quota") == 1) & ~np.isnan(possible)
    return np.asarray(
        under_way & ~np.isclose(v["flops"].to_numpy(dtype=float), possible, rtol=1e-6, atol=1.0)
    )


def _other_flops(books: Books) -> Bools:
    """Find whole visits at the client's own rank whose FLOPs are not those of its row."""
    v = books.visits
    if (
        books.block("protocol").get("kind") not in WHOLE_VISITS
        or books.block("personal").get("kind") not in ALONE
    ):
        return books.nothing
    whole = (books.of_client("tokens") == v["tokens"]) & books.own_rank & v["trained_s"].notna()
    whole &= (v["outcome"] != "polled") & (v["work_share"] == 1)
    wanted = books.of_client("visit_flops")
    return np.asarray(
        whole.to_numpy() & ~np.isnan(wanted) & ~np.isclose(v["flops"].to_numpy(), wanted, rtol=1e-9)
    )


WHOLE_VISITS = ("synchronous", "buffered", "semi-synchronous")
"""Protocols that never ask for a part of a visit."""
ALONE = ("none", "fine-tune")
"""Personalisations that train nothing beside a visit."""

SECONDS = (
    *_Side("down", "dispatched_s", "downloaded_s", "server_up_mbps").rules(),
    *_Side("up", "trained_s", "landed_s", "server_down_mbps").rules(),
    Invariant(
        "training takes the seconds of its FLOPs",
        _trained_otherwise,
        lambda r: f"has trained_s {r['trained_s'] - r['downloaded_s']:.9g} s after downloaded_s, and flops {r['flops']:.9g}: its device needs another time",
    ),
    Invariant(
        "training that was broken off computed what it could",
        _computed_otherwise,
        lambda r: f"has flops {r['flops']:.9g}, which is not what its device computes from downloaded_s to ended_s",
    ),
    Invariant(
        "whole visits have the FLOPs of their client",
        _other_flops,
        lambda r: f"has flops {r['flops']:.9g}, its client's row says otherwise",
    ),
)  # fmt: skip
