"""The schedules of the demo, PTB and the rules under the devices of 2025 and of 2026.

`python experiments/devices/compare.py run` plays them (timeline only, a minute of CPU) and writes runs.csv;
`python experiments/devices/compare.py table` writes the tables of README.md from it.
"""

from __future__ import annotations

import csv
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import fedsim
from fedsim.cli.demos.text import TEXT
from fedsim.config.experiment import Experiment
from fedsim.records.statistics import mean_interval
from fedsim.records.studies.kept import lines_of

HERE = Path(__file__).parent
ROWS, PAGE = HERE / "runs.csv", HERE / "README.md"
SEEDS = range(6)
SYNC = {"kind": "synchronous", "cohort": 10, "over_select": 1.3, "deadline_s": 2400}
FEDBUFF = {"kind": "buffered", "concurrency": 13, "buffer": 10, "once_per_buffer": True}
PROTOCOLS = {"sync": SYNC, "fedbuff": FEDBUFF}
DEVICES: dict[str, dict[str, Any]] = {
    "2025": {"population": {"preset": "mixed_edge_2025"}},
    "2026": {"population": {"preset": "mixed_edge_2026"}},
    "2026, on the screen": {
        "population": {"preset": "mixed_edge_2026"},
        "compute": {"app": "foreground"},
    },
    "2026, checkpoints where short": {
        "population": {"preset": "mixed_edge_2026"},
        "memory": {"when_short": ["checkpoint"]},
    },
    "2026, BLAS": {
        "population": {"preset": "mixed_edge_2026"},
        "compute": {"stack": {"android": "cpp-blas"}},
    },
    "2026, BLAS, on the screen": {
        "population": {"preset": "mixed_edge_2026"},
        "compute": {"app": "foreground", "stack": {"android": "cpp-blas"}},
    },
}
SCHEDULES = ("demo", "ptb", "rules")
GROUPS = {"phones, low": ("phone-low",), "mid": ("phone-mid",), "high": ("phone-high",)}
REST = "others"
COUNTS = ("commits", "visits", "landed", "memory", "offline", "late", "other")
SHARES = (*GROUPS, REST)


def blocks(schedule: str) -> dict[str, Any]:
    """Return what the experiments of a schedule have in common, as far as a schedule depends on it."""
    if schedule == "demo":
        common = {name: block for name, block in TEXT.common.items() if name in ("population", "budget")}
        return common | {"charge_as": TEXT.common["task"]["charge_as"], "lora": {"r": 8}}
    base = yaml.safe_load((HERE.parent / schedule / "base.yaml").read_text("utf-8"))
    lora = {"r": 16, "rank_by": "memory", "ranks": [2, 4, 8, 16]} if schedule == "rules" else {"r": 4}
    kept = {name: base[name] for name in ("population", "budget", "network")}
    return kept | {"charge_as": base["task"]["charge_as"], "lora": lora}


def experiment(schedule: str, protocol: str, devices: str, seed: int) -> Experiment:
    """Return one experiment: the schedule on the closed-form task, charged as the model that it charges."""
    common = blocks(schedule)
    charge = common.pop("charge_as")
    chosen = DEVICES[devices]
    return Experiment.model_validate(
        {
            **common,
            "name": f"{schedule}-{protocol}-{list(DEVICES).index(devices)}-{seed}",
            "seed": seed,
            "population": common["population"] | chosen["population"],
            "compute": chosen.get("compute", {}),
            "memory": chosen.get("memory", {}),
            "task": {"kind": "quadratic", "layout": "lora", "dimension": 64, "charge_as": charge},
            "local": {"optimizer": "sgd", "lr": 0.1, "steps": 5},
            "aggregator": {"kind": "flexlora" if schedule == "rules" else "fedit"},
            "protocol": PROTOCOLS[protocol],
        }
    )


def figures(run: fedsim.Run) -> dict[str, float]:
    """Return what is kept of a run: counts of visits by ending, and who is in the model."""
    endings = run.visits["outcome"].value_counts().to_dict()
    known = {name: float(endings.pop(name, 0)) for name in ("landed", "memory", "offline", "late")}
    committed = run.visits[run.visits["committed_version"] > 0]
    tiers = run.clients.set_index("client")["tier"]
    landed = committed["client"].map(tiers).value_counts(normalize=True).to_dict()
    by_group = {name: sum(landed.get(tier, 0.0) for tier in of) for name, of in GROUPS.items()}
    able = run.clients["needed_memory_bytes"] <= run.clients["usable_memory_bytes"]
    return {
        "hours": run.info.end_time_s / 3600,
        "commits": float(len(run.commits)),
        "visits": float(len(run.visits)),
        **known,
        "other": float(sum(endings.values())),
        "clients": float(committed["client"].nunique()),
        "able": float(able.sum()),
        **by_group,
        REST: 1.0 - sum(by_group.values()) if len(committed) else math.nan,
    }


def play() -> None:
    """Play every schedule, and write what came out of it, one run a row."""
    rows = [
        {"schedule": schedule, "protocol": protocol, "devices": devices, "seed": seed}
        | figures(fedsim.simulate(experiment(schedule, protocol, devices, seed), timeline_only=True))
        for schedule in SCHEDULES
        for protocol in PROTOCOLS
        for devices in DEVICES
        for seed in SEEDS
    ]
    with ROWS.open("w", encoding="utf-8", newline="") as file:
        file.write(
            "# written by experiments/devices/compare.py run: one run a row; last four: shares of the updates in the model\n"
        )
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _short(value) for name, value in row.items()} for row in rows)


def _short(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


# the tables -------------------------------------------------------------------------------------


def read() -> list[dict[str, str]]:
    """Return the rows of runs.csv."""
    return lines_of(ROWS.read_text("utf-8"))


def of(rows: list[dict[str, str]], schedule: str, protocol: str, devices: str) -> list[dict[str, str]]:
    """Return the rows of one configuration, by seed."""
    wanted = (schedule, protocol, devices)
    return [row for row in rows if (row["schedule"], row["protocol"], row["devices"]) == wanted]


def spread(values: list[float], *, percent: bool = False) -> str:
    """Return a mean and its 95 % interval in words."""
    found = mean_interval(values)
    scale, unit = (100, " %") if percent else (1, "")
    low, high = (f"{max(0.0, scale * end):.3g}" for end in (found.low, found.high))
    return f"{scale * found.mean:.3g}{unit} ({low} to {high})"


def table() -> Iterator[str]:
    """Yield the lines of the tables."""
    rows = read()
    yield f"| schedule | devices | commits | updates landed a commit | landed | lost: memory | offline | late | clients in the model | of them able | updates by {', '.join(SHARES)} |"
    yield f"|{'---|' * 11}"
    for schedule in SCHEDULES:
        for protocol in PROTOCOLS:
            for devices in DEVICES:
                found = of(rows, schedule, protocol, devices)
                visits = [float(row["visits"]) for row in found]
                cells = [spread([float(row["commits"]) for row in found])]
                landed, commits = (sum(float(row[name]) for row in found) for name in ("landed", "commits"))
                cells.append(f"{landed / commits:.1f}" if commits else "–")
                for name in ("landed", "memory", "offline", "late"):
                    shares = [float(row[name]) / n for row, n in zip(found, visits, strict=True)]
                    cells.append(f"{100 * sum(shares) / len(shares):.0f} %")
                means = (_mean(found, name) for name in ("clients", "able"))
                cells += [f"{mean:.0f}" for mean in means]
                cells.append(" / ".join(f"{100 * _mean(found, name):.0f}" for name in SHARES))
                yield f"| {schedule}, {protocol} | {devices} | {' | '.join(cells)} |"
    yield ""
    yield "| schedule | devices | commits of FedBuff over those of rounds | updates that land over those of rounds |"
    yield "|---|---|---|---|"
    for schedule in SCHEDULES:
        for devices in DEVICES:
            pairs = zip(
                *(of(rows, schedule, protocol, devices) for protocol in ("fedbuff", "sync")), strict=True
            )
            both = [(fedbuff, sync) for fedbuff, sync in pairs]
            cells = [_ratio(both, name) for name in ("commits", "landed")]
            yield f"| {schedule} | {devices} | {' | '.join(cells)} |"


def _mean(rows: list[dict[str, str]], name: str) -> float:
    values = [float(row[name]) for row in rows]
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else math.nan


def _ratio(pairs: list[tuple[dict[str, str], dict[str, str]]], name: str) -> str:
    if any(float(sync[name]) == 0 for _, sync in pairs):
        return "rounds made none"
    return spread([float(fedbuff[name]) / float(sync[name]) for fedbuff, sync in pairs])


BEGIN, END = (
    "<!-- tables: written by `python experiments/devices/compare.py table` -->\n",
    "<!-- end of tables -->",
)


def write() -> None:
    """Write the tables of README.md anew."""
    before, _, rest = PAGE.read_text("utf-8").partition(BEGIN)
    text = "\n".join(table()) + "\n"
    PAGE.write_text(f"{before}{BEGIN}{text}{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    {"run": play, "table": write}[sys.argv[1]]()
