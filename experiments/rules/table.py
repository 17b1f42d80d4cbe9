"""Print the tables of README.md and draw its figure: `python experiments/rules/table.py runs/rules figure.png`.

Takes the folder that holds one folder a sweep. A cell is the mean over seeds ± their standard deviation, with n where it is
not that of its table; `–` where a seed has no score, which no mean passes over. The last column is the difference from
`fedit` of equal ranks, pair by pair of seeds, with its 95 % interval.
"""

import re
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

import fedsim
from fedsim import views

METRIC = "perplexity"
RANKS = {
    "by-memory": "by memory",
    "equal": "4",
    "largest": "16",
    "mixing": "4",
    "three-ranks": "by memory, charged 160",
}
HOURS = (2, 4, 8)
GIGABYTES = 2.0

Runs = dict[tuple[str, str, str], list[fedsim.Run]]


def name(rule: dict[str, Any]) -> str:
    """Return what a rule is called in the tables: its kind, and what is not usual about it."""
    said = {k: v for k, v in rule.items() if (k, v) in (("padding", "rows"), ("tail", "kept"))}
    return ", ".join([rule["kind"], *(f"{k}: {v}" for k, v in said.items())])


def read(folder: Path) -> tuple[Runs, dict[str, list[fedsim.Run]]]:
    """Return runs by (rule, ranks, protocol), and personal runs by their kind."""
    rules: Runs = defaultdict(list)
    personal: dict[str, list[fedsim.Run]] = defaultdict(list)
    for sweep in sorted(p for p in folder.iterdir() if p.is_dir()):
        for path in sorted(p.parent for p in sweep.glob("*/run.json")):
            run = fedsim.load(path)
            asked = run.experiment
            if sweep.name.startswith("personal"):
                kind = asked["personal"]["kind"]
                lr = asked["personal"].get("lr")
                rule = asked["aggregator"]["kind"]
                said = rule if kind == "none" else kind if lr is None else f"{kind}, lr {lr:g}"
                personal[said].append(run)
            else:
                protocol = {"synchronous": "rounds", "buffered": "FedBuff"}[asked["protocol"]["kind"]]
                protocol = "FedAsync" if sweep.name == "mixing" else protocol
                ranks = RANKS[re.sub(r"-(sync|fedbuff)$", "", sweep.name)]
                rules[name(asked["aggregator"]), ranks, protocol].append(run)
    return rules, personal


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Return mean ± standard deviation and n; `–` if a value is missing."""
    found = np.array(list(values), dtype=float)
    if np.isnan(found).any():
        return "–"
    if found.size == 1:
        return f"{found[0]:.{digits}f} (n = 1)"
    return f"{found.mean():.{digits}f} ± {found.std(ddof=1):.{digits}f} (n = {found.size})"


def difference(runs: list[fedsim.Run], others: list[fedsim.Run], **budget: float) -> str:
    """Return the mean difference between pairs of seeds and its interval; `–` if there are none, or one lacks a score."""
    row = views.paired_difference(runs, others, METRIC, **budget).iloc[0]
    if row["missing"] or not row["pairs"]:
        return "–"
    return f"{row['mean']:+.2f} ({row['low']:+.2f} to {row['high']:+.2f}, n = {row['pairs']})"


def perplexity(run: fedsim.Run, **budget: float) -> float:
    """Return the last test perplexity that a budget allows, NaN where nothing was scored within it."""
    return views.value_at(run, METRIC, **budget)


def table(head: list[str], rows: Iterable[list[str]]) -> None:
    """Print a Markdown table."""
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for row in rows:
        print("| " + " | ".join(row) + " |")
    print()


def rules_table(rules: Runs, protocol: str) -> None:
    """Print what the rules reach under one protocol, the best last perplexity first."""
    total: Callable[[fedsim.Run, str], float] = lambda run, key: float(getattr(run.info.totals, key))  # noqa: E731
    mine = {key: runs for key, runs in rules.items() if key[2] == protocol}
    order = sorted(
        mine, key=lambda key: np.mean([perplexity(run, time_s=HOURS[-1] * 3600) for run in mine[key]]).item()
    )
    rows = []
    for key in order:
        runs = mine[key]
        landed = [(run.visits.committed_version > 0).sum() for run in runs]
        rows.append(
            [
                f"`{key[0]}`",
                key[1],
                spread(landed, 0),
                *(spread(perplexity(run, time_s=h * 3600) for run in runs) for h in HOURS),
                spread(perplexity(run, up_bytes=GIGABYTES * 1e9) for run in runs),
                spread((total(run, "up_bytes") / 1e9 for run in runs), 1),
                spread((total(run, "down_bytes") / 1e9 for run in runs), 1),
                spread((total(run, "joules") / 1e6 for run in runs), 2),
                difference(runs, mine.get(("fedit", *key[1:]), []), time_s=HOURS[-1] * 3600),
            ]
        )
    head = ["rule", "ranks", "updates", *(f"at {h} h" for h in HOURS), f"last score by {GIGABYTES:g} GB up"]
    print(f"{protocol}:\n")
    table([*head, "GB up", "GB down", "MJ", f"at {HOURS[-1]} h, from `fedit`"], rows)


def personal_table(personal: dict[str, list[fedsim.Run]]) -> None:
    """Print what clients gain by each way to personalise, those that took part and those never asked."""
    rows = []
    for kind, runs in personal.items():
        cells = []
        for part in (lambda t: t[~t.unseen], lambda t: t[t.unseen]):
            tables = [part(run.personal) for run in runs]
            cells += [
                spread((t.metric_global.mean() for t in tables), 2),
                spread((t.metric_personal.mean() for t in tables), 2),
                spread((t.gain.mean() for t in tables), 2),
                f"{np.mean([t.gain.quantile(0.1) for t in tables]):.2f} .. {np.mean([t.gain.quantile(0.9) for t in tables]):.2f}",
                f"{np.mean([(t.gain < 0).mean() for t in tables]):.0%}",
            ]
        rows.append([kind, *cells[:5], cells[2 + 5], cells[4 + 5]])
    table(
        [
            "method",
            "shared",
            "personal",
            "gain",
            "10 % .. 90 % of clients",
            "made worse",
            "gain, never asked",
            "worse, never asked",
        ],
        rows,
    )


def draw(rules: Runs, path: Path) -> None:
    """Draw perplexity over virtual time, a panel for each kind of ranks and each protocol."""
    panels = [(r, p) for r in ("by memory", "4") for p in ("rounds", "FedBuff")]
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    axes = figure.subplots(2, 2, sharex=True, sharey=True)
    for (ranks, protocol), ax in zip(panels, axes.flat, strict=True):
        for rule, of, how in rules:
            if (of, how) != (ranks, protocol):
                continue
            curve = views.mean_curve(rules[rule, of, how], METRIC)
            hours = curve.time_s / 3600
            (line,) = ax.plot(hours, curve["mean"], label=rule, linewidth=1.6, drawstyle="steps-post")
            low, high = curve["mean"] - curve.deviation, curve["mean"] + curve.deviation
            ax.fill_between(hours, low, high, step="post", alpha=0.15, color=line.get_color())
        ax.set_title(f"ranks {ranks}, {protocol}", fontsize=10)
        ax.set_xlim(1.0, HOURS[-1])
        ax.set_ylim(15.0, 45.0)  # the first scores after version 0 (144), which takes an hour or two
        ax.grid(visible=True, alpha=0.3, which="both")
        ax.legend(fontsize=8, loc="upper right")
    figure.supxlabel("virtual hours")
    figure.supylabel("perplexity on unseen text (mean and standard deviation of seeds)")
    figure.savefig(path, dpi=110)


found, private = read(Path(sys.argv[1]))
for how in ("rounds", "FedBuff", "FedAsync"):
    if any(key[2] == how for key in found):
        rules_table(found, how)
if private:
    personal_table(private)
if len(sys.argv) > 2:
    draw(found, Path(sys.argv[2]))
