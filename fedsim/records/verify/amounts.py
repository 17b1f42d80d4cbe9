"""What holds for what a visit used: bytes, FLOPs, joules and memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from fedsim.records.verify.books import Books, equal
from fedsim.records.verify.invariants import Invariant

COLUMNS = (
    *("down_bytes", "up_bytes", "serialized_down_bytes", "serialized_up_bytes"),
    *("flops", "joules", "gross_joules"),
)


# bytes, FLOPs and joules ------------------------------------------------------------------------


def _no_amount(column: str) -> Invariant:
    def broken(books: Books) -> Any:
        amounts = books.visits[column].to_numpy()
        return ~(np.isfinite(amounts) & (amounts >= 0))

    return Invariant(
        f"{column} is an amount", broken, lambda r: f"has {column} {r[column]}, which is no amount"
    )


AMOUNTS = (
    *(_no_amount(column) for column in COLUMNS),
    Invariant(
        "nothing is uploaded before training is done",
        lambda b: (
            b.visits["trained_s"].isna()
            & ((b.visits["up_bytes"] > 0) | (b.visits["serialized_up_bytes"] > 0))
        ),
        lambda r: f"uploaded {r['up_bytes']} bytes before its training was done",
    ),
    Invariant(
        "nothing is computed before the download is done",
        lambda b: b.visits["downloaded_s"].isna() & (b.visits["flops"] > 0),
        lambda _: "computed before its download was done",
    ),
    Invariant(
        "what landed has bytes",
        lambda b: (
            b.visits["landed_s"].notna() & (b.visits["up_bytes"] == 0) & (b.visits["serialized_up_bytes"] > 0)
        ),
        lambda _: "landed without a byte uploaded",
    ),
    Invariant(
        "what landed is charged as it was serialised",
        lambda b: (
            b.visits["landed_s"].notna()
            & (b.visits["up_bytes"] != b.visits["serialized_up_bytes"])
            & (not b.as_another)
        ),
        lambda r: f"counts {r['up_bytes']} bytes up, but serialised {r['serialized_up_bytes']}",
    ),
    Invariant(
        "gross joules are joules and idle power",
        lambda b: (
            np.isfinite(b.visits["expected_gross"])
            & ~equal(b.visits["gross_joules"], b.visits["expected_gross"])
        ),
        lambda r: (
            f"has gross_joules {r['gross_joules']:.12g}, joules and idle power give {r['expected_gross']:.12g}"
        ),
    ),
)


# memory and ranks -------------------------------------------------------------------------------

MEMORY = (
    Invariant(
        "who runs out of memory has too little",
        lambda b: (b.visits["outcome"] == "memory") & b.own_rank & ~b.small_memory,
        lambda _: "ran out of memory on a device that has enough",
    ),
    Invariant(
        "who trains has enough memory",
        lambda b: b.visits["trained_s"].notna() & b.small_memory,
        lambda _: "trained on a device whose memory is too small",
    ),
    Invariant(
        "ranks are within the client's",
        lambda b: b.visits["rank"] > b.visits["client_rank"],
        lambda r: f"trained rank {r['rank']}, its client has {r['client_rank']:.0f}",
    ),
    Invariant(
        "memory plans are the client's",
        lambda b: (
            b.visits["client_memory_plan"].notna()
            & b.own_rank
            & (b.visits["memory_plan"] != b.visits["client_memory_plan"])
        ),
        lambda r: f"has the memory plan {r['memory_plan']!r}, its client {r['client_memory_plan']!r}",
    ),
)
