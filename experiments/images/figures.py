"""The figure of README.md: every measure of every method and seed, of runs.csv.

python experiments/images/figures.py
"""

from __future__ import annotations

import runpy
from collections.abc import Mapping
from pathlib import Path

from matplotlib.figure import Figure

from fedsim.records.studies.kept import Rows

HERE = Path(__file__).parent
TABLES = runpy.run_path(str(HERE / "tables.py"))
FIGURE = HERE / "distances.png"


def draw(rows: Rows, path: Path) -> None:
    """Draw a panel a measure, a row a split, a line a seed; nothing where nothing was run."""
    measures: Mapping[str, str] = TABLES["MEASURES"]
    names: Mapping[str, str] = {TABLES["PRETRAINED"]: TABLES["PRETRAINED"], **TABLES["WAYS"]}
    studies = list(dict.fromkeys(key.study for key in rows))
    if not studies:
        return
    figure = Figure(figsize=(12, 0.6 + 2.4 * len(studies)), layout="constrained")
    panels = figure.subplots(len(studies), len(measures), sharey="col", squeeze=False)
    for study, row in zip(studies, panels, strict=True):
        ways = [way for way in names if TABLES["by_seed"](rows, study, way, "gap")]
        for (measure, label), panel in zip(measures.items(), row, strict=True):
            for seed in TABLES["seeds_of"](rows, study):
                values = [TABLES["value"](rows, study, way, seed, measure) for way in ways]
                panel.plot(values, "o-", markersize=4, linewidth=0.8, alpha=0.8)
            panel.axhline(0.0, alpha=0.0)  # so that zero is in sight
            words = [names[way] for way in ways]
            panel.set_xticks(range(len(ways)), words, rotation=60, ha="right", fontsize=7)
            panel.set_title(label, fontsize=8)
        row[0].set_ylabel(study)
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    draw(TABLES["read"](), FIGURE)
