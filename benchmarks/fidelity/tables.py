"""Markdown tables of the results, put between marks in README.md."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fedsim.errors import DataError, message

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def replayed(answer: dict[str, Any]) -> str:
    """Return the table of `--check`."""
    names = list(dict.fromkeys(name for found in answer["classes"].values() for name in found["others"]))
    law = "CPU time / share"
    models = [name for name in names if name != law]
    head = ["class of measurements", "n", "fedsim: mean", "p90", "max", "bound on the mean", *models]
    rows = []
    for case, found in answer["classes"].items():
        own = [percent(found[f"{key}_percent"]) for key in ("mean", "p90", "max")]
        bound = "" if found["bound_percent"] is None else f"{found['bound_percent']:g} %"
        others = [
            percent(found["others"][name]["mean_percent"]) if name in found["others"] else ""
            for name in models
        ]
        if law in found["others"]:
            others[0] = f"{percent(found['others'][law]['mean_percent'])} ({law})"
        rows.append([case, str(found["n"]), *own, bound, *others])
    return table(head, rows)


def federated(answer: dict[str, Any]) -> str:
    """Return the table of `run`: one row a federation, protocol and work."""
    head = ["clients", "protocol", "work", "measured", "noise", "fedsim", "error", "bound"]
    head += ["each arrival", "size / bandwidth", "error", "each arrival"]
    rows = []
    for one in sorted(
        answer["results"], key=lambda r: (r["clients"], r["work"], r["protocol"] == "buffered")
    ):
        own, naive = one["models"]["fedsim"], one["models"]["size / bandwidth"]
        key = one["headline"]
        shown = {"round_s": "{:.2f} s a round", "updates": "{:.1f} updates"}[key].format
        noise = "" if one["noise_percent"] is None else percent(one["noise_percent"])
        rows.append(
            [
                f"{one['clients']}",
                one["protocol"],
                one["work"],
                f"{shown(one['measured'][key])} (n = {one['repetitions']})",
                noise,
                shown(own[key]),
                signed(own["error_percent"]),
                f"{one['bound_percent']:g} %",
                percent(own["arrival_percent"]),
                shown(naive[key]),
                signed(naive["error_percent"]),
                percent(naive["arrival_percent"]),
            ]
        )
    return table(head, rows)


def staleness(answer: dict[str, Any]) -> str:
    """Return the table of the asynchronous runs' commits and staleness."""
    head = [
        "clients",
        "work",
        "commits",
        "fedsim",
        "size / bandwidth",
        "mean staleness",
        "fedsim",
        "size / bandwidth",
    ]
    rows = []
    for one in sorted(answer["results"], key=lambda r: (r["clients"], r["work"])):
        if one["protocol"] == "buffered":
            columns = [one["measured"], one["models"]["fedsim"], one["models"]["size / bandwidth"]]
            commits = [f"{column['commits']:.1f}" for column in columns]
            stale = [f"{column['staleness']:.2f}" for column in columns]
            rows.append([str(one["clients"]), one["work"], *commits, *stale])
    return table(head, rows)


def percent(value: float) -> str:
    """Return 1.234 as `1.2 %`, small values with two digits."""
    return f"{value:.2f} %" if abs(value) < 1 else f"{value:.1f} %"


def signed(value: float) -> str:
    """Return the same with its sign."""
    return ("+" if value >= 0 else "-") + percent(abs(value))


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def write(readme: Path = HERE / "README.md", results: Path = RESULTS) -> None:
    """Replace what stands between `<!-- name -->` and `<!-- end -->` in a README by tables of the results.

    Raises:
        DataError: the README lacks a mark.
    """
    text = readme.read_text("utf-8")
    check, run = (json.loads((results / f"{name}.json").read_text("utf-8")) for name in ("check", "run"))
    for name, made in (("check", replayed(check)), ("run", federated(run)), ("staleness", staleness(run))):
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition("<!-- end -->")
        if not (mark and end):
            fix = f"add the lines <!-- {name} --> and <!-- end -->"
            raise DataError(message(str(readme), f"has no place for the table {name!r}", fix=fix))
        text = f"{before}{mark}\n{made}\n\n{end}{after}"
    readme.write_text(text, "utf-8")
