"""Joules of visits, computed again from powers, seconds and bytes: exact without heat and pauses, else between bounds.

joules = radio power x seconds of the download + price x bytes
       + (training power - idle power) x seconds of training
       + the same as the first line for the upload, and the radio's tails where `energy.tail` asks for them
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from fedsim.arrays import Bools, Floats
from fedsim.records.verify.books import Books
from fedsim.records.verify.invariants import Invariant


@dataclass(frozen=True)
class _Joules:
    """What visits can have used above idle [J], (visits,) each: NaN where the clients' table does not say it."""

    least: Floats
    most: Floats


def _spent_s(began_s: Floats, done_s: Floats, ended_s: Floats) -> Floats:
    """Return how long a phase went: to its end, or to the end of the visit; 0 if it never began."""
    until_s = np.where(np.isnan(done_s), ended_s, done_s)
    return np.where(np.isnan(began_s), 0.0, until_s - began_s)


def _bounds(books: Books) -> _Joules:
    v = books.visits
    instants = ("dispatched_s", "downloaded_s", "trained_s", "landed_s", "ended_s")
    dispatched, downloaded, trained, landed, ended = (v[name].to_numpy(dtype=float) for name in instants)
    radio = np.zeros(len(v))
    for side, began, done in (("down", dispatched, downloaded), ("up", trained, landed)):
        price = books.of_client(f"{side}_radio_j_per_byte") * v[f"{side}_bytes"].to_numpy(dtype=float)
        radio = radio + books.of_client(f"{side}_radio_w") * _spent_s(began, done, ended) + price
    tails = _Joules(np.zeros(len(v)), np.zeros(len(v)))
    if books.block("energy").get("tail") is True:
        tails = _tails(books, downloaded, trained, landed)
    worked_s = np.where(v["flops"].to_numpy() > 0, _spent_s(downloaded, trained, ended), 0.0)
    train_w = books.of_client("train_w") - books.of_client("idle_w")
    heats = books.block("compute").get("thermal", "none") != "none"
    training = train_w * worked_s
    powers = (books.of_client("down_radio_w"), books.of_client("up_radio_w"), np.maximum(train_w, 0.0))
    paused_j = v["paused_s"].to_numpy(dtype=float) * np.maximum.reduce(powers)
    low = np.minimum(training, -books.of_client("idle_w") * worked_s) if heats else training
    return _Joules(radio + tails.least + low - paused_j, radio + tails.most + np.maximum(training, low))


def _tails(books: Books, downloaded_s: Floats, trained_s: Floats, landed_s: Floats) -> _Joules:
    """Return what radios take that stay up after transfers: behind bytes, or behind what may have had some."""
    tail_w, tail_s = books.of_client("tail_w"), books.of_client("tail_s")
    gap_s = trained_s - downloaded_s
    down, up = (books.visits[f"{side}_bytes"].to_numpy() > 0 for side in ("down", "up"))
    begun = ~np.isnan(gap_s)

    def joules(downloads: Bools, uploads: Bools) -> Floats:
        first_s = np.where(downloads & uploads, np.fmin(tail_s, gap_s), 0.0)
        return np.asarray(tail_w * (first_s + np.where(downloads | uploads, tail_s, 0.0)))

    cut_down, cut_up = np.isnan(downloaded_s), begun & np.isnan(landed_s)  # nothing of it may have left yet
    return _Joules(joules(down, up & begun), joules(down | cut_down, (up & begun) | cut_up))


def _other_joules(books: Books) -> Bools:
    joules, bounds = books.visits["joules"].to_numpy(dtype=float), _bounds(books)
    slack = 1e-6 + 1e-9 * np.abs(bounds.most)
    with np.errstate(invalid="ignore"):
        return np.asarray((joules < bounds.least - slack) | (joules > bounds.most + slack))


ENERGY = (
    Invariant(
        "joules are powers times seconds",
        _other_joules,
        lambda r: f"has joules {r['joules']:.9g}, which its device's powers, seconds and bytes do not give",
    ),
)
