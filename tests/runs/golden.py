"""The golden runs: small experiments that must come out as they did when their digests were written.

    python tests/runs/golden.py            compare all runs with their digests
    python tests/runs/golden.py --write    write the digests anew, after a change that is meant to change them
    python tests/runs/golden.py --write timely oort

`tests/runs/golden_runs/NAME.yaml` is an experiment and `NAME.json` what its run gave: the SHA-256 of every column. Columns that
training computes (`VALUES`) are digests too, but for rules that multiply matrices (`PRODUCTS`): the last bits of a product or
a decomposition are the linear algebra library's, so their numbers are stored and may differ by `TOLERANCE`.
"""

from __future__ import annotations

import json
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
from digests import adapter, columns, differences, digest

import fedsim

FOLDER = Path(__file__).parent / "golden_runs"
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.yaml")))
SCHEDULE_ONLY = ("private_layers",)
"""Runs of a real model: its values are another machine's, its schedule is not."""
READS_VALUES = ("oort", "power_of_choice", "tiers_turns")
"""Runs whose schedule follows from losses: there is none without training."""
PRODUCTS = ("hot_phones", "late_finish", "semi_synchronous", "timely", "timely_ranks")
VALUES = ("visits.loss", "commits.update_norm", "commits.mean_cosine", "scores.value", "adapter.")
VALUES += ("personal.metric_global", "personal.metric_personal", "personal.metric_local", "personal.gain")
WITHOUT_TRAINING = ("clients.", "visits.", "commits.")
"""Tables that a run without training has in full, but for the columns that training fills."""
TOLERANCE = 1e-5


def is_value(name):
    """Whether training computes this column."""
    return name.startswith(VALUES)


def trained(name):
    """Return `table.column` -> values of a run, and of the adapter it saved."""
    experiment = fedsim.read(FOLDER / f"{name}.yaml")
    if name in SCHEDULE_ONLY:
        return columns(fedsim.simulate(experiment, timeline_only=True))
    with tempfile.TemporaryDirectory() as folder:
        run = fedsim.simulate(experiment, out=Path(folder) / "run", report=False)
        return {**columns(run), **adapter(Path(folder) / "run")}


def recorded(name, found):
    """Return what is stored of a run's columns: a digest each, or the numbers where only those are comparable."""
    return {key: numbers(v) if name in PRODUCTS and is_value(key) else digest(v) for key, v in found.items()}


def numbers(values):
    """Return a column as a list of floats that JSON has, `null` for what is missing."""
    return [None if math.isnan(value) else float(value) for value in np.asarray(values, dtype=np.float64)]


def stored(name):
    """Return the digests and numbers of a run as they were written."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def changes(name, found):
    """Return one line a column of a run that is not as it was written."""
    wanted, got = stored(name), recorded(name, found)
    for key, value in wanted.items():
        if isinstance(value, list) and key in got and close(value, got[key]):
            got[key] = value
    return [f"{name}: {line}" for line in differences(wanted, got)]


def changes_without_training(name):
    """Return one line a column of the schedule that a run without training has otherwise than was written."""
    run = fedsim.simulate(fedsim.read(FOLDER / f"{name}.yaml"), timeline_only=True)

    def scheduled(key):
        return key.startswith(WITHOUT_TRAINING) and not is_value(key) and key != "visits.computed"

    wanted = {key: value for key, value in stored(name).items() if scheduled(key)}
    got = {key: digest(values) for key, values in columns(run).items() if scheduled(key)}
    return [f"{name}, without training: {line}" for line in differences(wanted, got)]


def close(wanted, got):
    """Whether two lists of numbers agree, the smallest measured by the largest."""
    if len(wanted) != len(got) or [v is None for v in wanted] != [v is None for v in got]:
        return False
    one, other = (np.array([0.0 if v is None else v for v in values]) for values in (wanted, got))
    largest = max(1e-30, float(np.abs(one).max(initial=0.0)))
    return bool(np.allclose(other, one, rtol=TOLERANCE, atol=TOLERANCE * largest))


def main(words):
    """Compare or write; returns the exit status."""
    names = [word for word in words if word != "--write"] or NAMES
    lines = []
    for name in names:
        found = trained(name)
        if "--write" in words:
            text = json.dumps(recorded(name, found), indent=1) + "\n"
            (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")
            print(f"{name}: {len(found)} columns written")
        else:
            lines += changes(name, found)
    print("\n".join(lines) or f"{len(names)} runs are as they were written")
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
