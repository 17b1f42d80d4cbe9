"""What commands print on stdout: tables, estimates, one visit trained again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fedsim.cli.watching.words import plain
from fedsim.errors import visible
from fedsim.records.quantities import duration, said

if TYPE_CHECKING:
    from fedsim.runs.dry_run import Estimates
    from fedsim.runs.preflight.holding import Holding
    from fedsim.runs.preflight.needs import RunNeeds
    from fedsim.runs.replay import Replay


def table(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as aligned text, one column a key, in the order keys first appear.

    >>> print(table([{"name": "a", "n": 1}, {"name": "bb"}]))
    name  n
    a     1
    bb
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [names, *([_cell(row.get(name, "")) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells
    )


def print_json(value: object) -> None:
    """Print a value on stdout as one JSON object, as every command does that is given `--json`; what is not known is null."""
    print(json.dumps(plain(value), indent=2, allow_nan=False))


def listing(value: Any, indent: str = "") -> str:
    """Return plain values for reading: rows as a table, blocks indented."""
    if isinstance(value, Mapping):
        lines = []
        for key, item in value.items():
            if isinstance(item, Mapping) or _is_rows(item):
                lines += [f"{indent}{key}:", listing(item, indent + "  ")]
            else:
                lines.append(f"{indent}{key}: {_cell(item)}")
        return "\n".join(lines)
    if _is_rows(value):
        return "\n".join(indent + line for line in table(value).splitlines())
    return indent + _cell(value)


def print_estimates(found: Estimates, needs: RunNeeds, *, as_json: bool) -> None:
    """Print what a run would take."""
    if as_json:
        print_json({"estimates": found, "needs": needs})
    else:
        print("\n".join([estimates(found), *needs.lines()]))


def estimates(run: Estimates) -> str:
    """Return what `dry_run` estimates: the virtual side as it will be, the real side as measured on one visit."""
    totals = run.totals
    outcomes = ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in sorted(totals.outcomes.items()))
    energy, gross = said("joules", totals.joules), said("joules", totals.gross_joules)
    lines = [
        table(run.resolved.table()),
        f"online: {run.resolved.online}",
        *_holding(run.holding),
        *(f"set by other keys: {followed}" for followed in run.resolved.followed),
        *(f"note: {notice}" for notice in run.resolved.notices),
        f"visits: {totals.visits} ({outcomes})",
        f"commits: {totals.commits}, evaluations: {run.evaluations}",
        f"virtual time: {duration(run.virtual_s)} ({run.virtual_s / 3600:.2f} hours)",
        f"bytes: {said('bytes', totals.up_bytes)} up, {said('bytes', totals.down_bytes)} down",
        f"energy of the devices: {energy} ({totals.joules:.0f} joules) above idle, {gross} in all",
        f"visits that really train: {run.trained_visits}",
    ]
    if run.may_end_sooner:
        lines.append("note: at most, since budget.target may end it sooner")
    if (work := run.real_work) is not None:
        each = f"{work.train_s_per_visit:.3g} s a visit, {work.score_s:.3g} s an evaluation"
        lines.append(f"this machine, one worker: about {duration(work.machine_s)} ({each})")
    return "\n".join(lines)


def _holding(rows: Sequence[Holding]) -> list[str]:
    """Return who can hold the training: a line where all can whatever the precision, else a table."""
    if not rows:
        return []
    if all(able == row.clients for row in rows for able in row.able.values()):
        return ["memory: everybody can hold the training"]
    return [table([row.shown() for row in rows])]


def replay_facts(found: Replay) -> dict[str, object]:
    """Return what `fedsim replay --json` says of a visit that was trained again."""
    update, (before, after) = found.update, found.held_out
    return {
        "steps": update.steps,
        "examples": update.examples,
        "tokens": update.tokens,
        "loss": float(update.loss),
        "recorded_loss": found.recorded_loss,
        "agreement": found.agreement,
        "held_out": {"before": before, "after": after},
    }


def replayed(again: Replay) -> str:
    """Return what training one visit again gave, beside what the run recorded."""
    update, (before, after) = again.update, again.held_out
    lines = [
        f"trained {update.steps} steps on {update.examples} examples, {update.tokens} tokens",
        f"training loss {update.loss!r}, recorded {again.recorded_loss!r}: {again.agreement}",
    ]
    return "\n".join(
        lines + [f"held-out {name}: {before[name]:.6g} -> {value:.6g}" for name, value in after.items()]
    )


def _is_rows(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else visible(str(value))
