"""`python -m benchmarks tables_long`: what `tables` measures, of a run of 10^7 visits. Takes a quarter of an hour."""

from __future__ import annotations

from benchmarks.harness import Results
from benchmarks.tables import measure


def run(results: Results) -> None:
    """Measure every step once."""
    measure(results, (10_000,) if results.options.quick else (10_000_000,))
