# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Reading and comparing runs
#
# **Four runs lie in a folder. What can be read off them, and which configuration is better?**
#
# Whatever ran (`fedsim run`, `fedsim sweep`, Python), what it leaves is a folder of tables. This page writes four of them and
# then works with the folders alone, as one does a week later.

# %%
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd

import fedsim
from fedsim import plots, views

folder = Path(mkdtemp())
common = {
    "population": {"preset": "mixed_edge_2025", "clients": 24, "availability": "charging"},
    "task": {
        "kind": "language",
        "sequence": 32,
        "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 20_000},
    },
    "lora": {"r": 4, "alpha": 8},
    "local": {"lr": 5e-3, "steps": 4, "batch": 4},
    "protocol": {"kind": "buffered", "concurrency": 6, "buffer": 4},
    "budget": {"commits": 8},
    "evaluate": {"every_commits": 2, "windows": 48},
    "runtime": {"executor": "inline"},
}
for wire in ("float32", "int8"):
    for seed in (0, 1):
        experiment = {"name": f"{wire}-{seed}", "seed": seed, **common, "wire": {"dtype": wire}}
        fedsim.simulate(experiment, out=folder / experiment["name"], report=False)

# %% [markdown]
# ## One run

# %%
sorted(path.name for path in (folder / "int8-0").iterdir())

# %%
run = fedsim.load(folder / "int8-0")
run

# %% [markdown]
# The configuration is in it, whole: `fedsim.Experiment.model_validate` gives the object back, and the same run with it.

# %%
again = fedsim.Experiment.model_validate(run.experiment)
again.wire

# %%
plots.gantt(run)

# %%
run.visits.merge(run.clients[["client", "tier"]], on="client").pivot_table(
    index="tier", columns="outcome", values="joules", aggfunc="sum", observed=True
).round(0)

# %% [markdown]
# ## Several runs
#
# Runs that differ in nothing but their seeds are one configuration: a mean in a band.

# %%
runs = [fedsim.load(path) for path in sorted(folder.iterdir())]
plots.compare(runs)

# %%
int8 = [each for each in runs if each.experiment["wire"]["dtype"] == "int8"]
float32 = [each for each in runs if each.experiment["wire"]["dtype"] == "float32"]
print("perplexity after the last commit, int8 minus float32:")
print(views.paired_values(int8, float32, "perplexity"))

# %%
pd.DataFrame(
    {
        each.name: {
            "uploaded MB": each.info.totals.up_bytes / 1e6,
            "MJ": each.info.totals.joules / 1e6,
            "hours": each.info.end_time_s / 3600,
            "perplexity": each.info.last_score.value,
        }
        for each in runs
    }
).T.round(2)

# %% [markdown]
# ## A figure for a paper
#
# Every figure is a Plotly figure, and with one call one of matplotlib: a PDF with the same curves.

# %%
printed = plots.to_matplotlib(plots.compare(runs), width_inches=7)
printed.savefig(folder / "comparison.pdf")
printed

# %% [markdown]
# ## And without Python
#
# `fedsim compare RUN... --target perplexity=23` prints the same differences, `fedsim report RUN...` makes the page, and `fedsim verify RUN`
# replays the schedule and recomputes the accounts.
#
# ## What we have seen
#
# * Eight bits a number make uploads about a quarter as large, and nearly nothing else changes: not the hours, since
#   training is what takes time.
# * The difference in perplexity is printed pair by pair. Two pairs give two numbers, and no more than their signs and sizes should be read.
