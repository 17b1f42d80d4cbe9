"""`python -m benchmarks personal`: memory of a run in which every client trains and keeps an adapter of its own, up to 100,000 of them.

What clients keep is on disk, so memory may grow by the arrays of the population and by some bytes a client alone. While a run
goes on the rows of its visits fill a buffer (65,536 rows, about 40 MiB), once; closing it sorts them, a row group at a time.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import personal_run
from benchmarks.harness import Results, say
from benchmarks.processes import told

SIZES = (10_000, 100_000)
MOST_GROWTH_MIB, MOST_BYTES = 64.0, 1500
"""What the last nine tenths of a run may add before it is closed, and the most bytes that each client more may take: its adapter has 8,000."""


def run(results: Results) -> None:
    """Train at both sizes."""
    sizes = (1000,) if results.options.quick else SIZES
    peaks: dict[int, float] = {}
    for clients in sizes:
        found: list[dict[str, float]] = []
        for _ in range(1 if clients == SIZES[-1] else results.options.counted):
            results.listen()
            found.append(told(Path(personal_run.__file__), "--clients", str(clients)))
            say(f"  {clients:,} clients: {found[-1]}")
        for key, unit in (
            ("early_mib", "MiB"),
            ("late_mib", "MiB"),
            ("peak_mib", "MiB"),
            ("kept_mib", "MiB"),
            ("cpu_s", "s"),
        ):
            results.add(f"{clients}.{key}", [one[key] for one in found], unit)
        peaks[clients] = max(one["late_mib"] for one in found)
        growth = max(one["late_mib"] - one["early_mib"] for one in found)
        what = f"{clients:,} clients: the last nine tenths add at most {MOST_GROWTH_MIB:.0f} MiB"
        results.check(what, ok=growth <= MOST_GROWTH_MIB, seen=f"{growth:.1f} MiB")
    if len(peaks) == len(SIZES):
        each = (peaks[SIZES[1]] - peaks[SIZES[0]]) * 2**20 / (SIZES[1] - SIZES[0])
        what = f"a client more takes at most {MOST_BYTES} bytes"
        results.check(what, ok=each <= MOST_BYTES, seen=f"{each:.0f} bytes")
    results.about = {"sizes": list(sizes), "cohort": personal_run.COHORT}
