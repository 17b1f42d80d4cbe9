"""How everything here is measured: interleaved, warmed up, medians with spread, ratios in pairs.

One repetition runs every contestant once, in the same order (A B C, A B C, ...), so that a slow minute
of the machine hits all of them; a ratio is formed within a repetition and only then summarised.
"""

from __future__ import annotations

import gc
import json
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from benchmarks import machine

HERE = Path(__file__).parent
RESULTS = HERE / "results"
CACHE = HERE / ".cache"
GAP_S = 0.5
"""How long the machine is listened to between two runs [s]."""

T = TypeVar("T")


class Busy(Exception):  # noqa: N818  # reads as what it says
    """Others use the machine: a measurement would be worthless."""


@dataclass(frozen=True)
class Options:
    """How to measure.

    Attributes:
        quick: one repetition of little work, to see that everything runs; never written to `results/`.
        repetitions: of every contestant, after the warm-up.
        anyway: measure although the machine is busy.
        device: `cuda` or `cpu`, for the benchmark of that name.
    """

    quick: bool = False
    repetitions: int = 5
    anyway: bool = False
    device: str = "cuda"

    @property
    def counted(self) -> int:
        """Repetitions that are really made."""
        return 1 if self.quick else self.repetitions


def summary(samples: Sequence[float], unit: str) -> dict[str, Any]:
    """Return median, least, largest and number of the samples, with their unit.

    >>> summary([3.0, 1.0, 2.0], "ms")
    {'median': 2.0, 'min': 1.0, 'max': 3.0, 'n': 3, 'unit': 'ms'}
    """
    return {
        "median": statistics.median(samples),
        "min": min(samples),
        "max": max(samples),
        "n": len(samples),
        "unit": unit,
    }


def paired(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """Return the ratio of each repetition.

    >>> paired([2.0, 9.0], [1.0, 3.0])
    [2.0, 3.0]
    """
    return [a / b for a, b in zip(above, below, strict=True)]


@dataclass
class Results:
    """What one benchmark found.

    Attributes:
        name: of the benchmark; every key begins with it.
        options: how it was measured.
        values: key -> summary.
        checks: statements that were tested while measuring, with what was seen.
        missing: contestants that could not take part -> why.
        about: facts that a reader needs (sizes, settings).
    """

    name: str
    options: Options
    values: dict[str, dict[str, Any]] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    gaps: list[float] = field(default_factory=list)

    def add(self, key: str, samples: Sequence[float], unit: str) -> None:
        """Keep the samples of a quantity under `NAME.key`."""
        self.values[f"{self.name}.{key}"] = summary(samples, unit)

    def ratio(self, key: str, above: Sequence[float], below: Sequence[float]) -> None:
        """Keep a ratio, formed repetition by repetition."""
        self.add(key, paired(above, below), "ratio")

    def check(self, what: str, *, ok: bool, seen: str) -> None:
        """Keep a statement and whether it held."""
        self.checks.append({"what": what, "ok": bool(ok), "seen": seen})
        say(f"  {'ok' if ok else 'NOT OK'}: {what} ({seen})")

    def listen(self) -> None:
        """Note how busy others keep the machine, between two runs."""
        heard = machine.busy_cores(GAP_S)
        if heard is not None:
            self.gaps.append(heard)


def interleaved(
    contestants: Mapping[str, Callable[[], T]], repetitions: int, between: Callable[[], None] = lambda: None
) -> dict[str, list[T]]:
    """Run A B C, A B C, ...; returns each contestant's outcomes in order of repetition.

    Args:
        contestants: what to run, by name, in their order.
        repetitions: how often.
        between: called before every run.
    """
    outcomes: dict[str, list[T]] = {name: [] for name in contestants}
    for _ in range(repetitions):
        for name, run in contestants.items():
            gc.collect()
            between()
            outcomes[name].append(run())
    return outcomes


def measured(name: str, run: Callable[[Results], None], options: Options) -> Path:
    """Run a benchmark between two looks at the machine and write its results.

    Raises:
        Busy: others use more than a quarter of a core, and `options.anyway` is not set.
    """
    before = machine.busy_cores(0.2 if options.quick else 2.0)
    loud = before is not None and before > machine.QUIET_CORES
    if loud and not (options.anyway or options.quick):
        text = f"others use {before:.2f} cores of this machine: stop them, or measure with --anyway"
        raise Busy(text)
    if loud:
        say(f"WARNING: others use {before:.2f} cores of this machine; do not quote these numbers")
    say(f"{name}: {options.counted} repetitions" + (" (quick: smoke run)" if options.quick else ""))
    started = datetime.now(UTC)
    results = Results(name, options)
    run(results)
    after = machine.busy_cores(0.2 if options.quick else 2.0)
    heard = [x for x in (before, *results.gaps, after) if x is not None]
    disturbed = statistics.median(heard) if heard else None
    stored = {
        "benchmark": name,
        "quick": options.quick,
        "date": started.strftime("%Y-%m-%d %H:%M UTC"),
        "took_s": round((datetime.now(UTC) - started).total_seconds(), 1),
        "machine": machine.described(),
        "revision": machine.revision(HERE.parent),
        "others_cores": {"before": before, "median": disturbed, "max": max(heard, default=None)},
        "quiet": disturbed is not None and disturbed <= machine.QUIET_CORES,
        "about": results.about,
        "missing": results.missing,
        "checks": results.checks,
        "values": results.values,
    }
    folder = CACHE / "quick" if options.quick else RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_text(json.dumps(_rounded(stored), indent=1) + "\n", encoding="utf-8")
    for key, value in results.values.items():
        say(f"  {key:<40} {said(value)}")
    say(f"  {stored['took_s']:.0f} s, written to {path.relative_to(HERE.parent)}")
    return path


def stored(name: str) -> dict[str, Any] | None:
    """Return the committed results of a benchmark, None if it was not measured yet."""
    path = RESULTS / f"{name}.json"
    if not path.is_file():
        return None
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def said(value: Mapping[str, Any]) -> str:
    """Return a summary in words: `183 ms (174 to 186, n = 5)`."""
    unit = {"ratio": "x"}.get(value["unit"], " " + value["unit"])
    spread = f"{number(value['min'])} to {number(value['max'])}, n = {value['n']}"
    return f"{number(value['median'])}{unit} ({spread})"


def number(value: float) -> str:
    """Return a number with three significant digits, without an exponent.

    >>> number(1234.5), number(0.034567), number(7)
    ('1,234', '0.0346', '7.00')
    """
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    digits = next(d for d in range(1, 12) if abs(value) >= 10 ** (2 - d))
    return f"{value:.{digits}f}"


def say(text: str) -> None:
    """Print a line at once."""
    print(text, file=sys.stderr, flush=True)


def _rounded(value: Any) -> Any:
    """Keep six significant digits, so that files stay readable."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(one) for one in value]
    return value
