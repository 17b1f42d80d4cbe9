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
# # A rule of your own, and a trace of your own
#
# **Does a rule that shrugs off broken updates cost anything when nothing is broken? And what does a link that comes
# and goes do to a run?**
#
# Both questions need something that fedsim does not bring along: a rule in a file of yours, and a recording of a link.

# %%
import sys
from pathlib import Path
from tempfile import mkdtemp

import pandas as pd

import fedsim
from fedsim import plots, views

folder = Path(mkdtemp())
sys.path.insert(0, str(folder))

# %% [markdown]
# ## The rule
#
# A rule is a class with three pure functions: its first state, what a client is offered, and the next model. This one
# takes, coordinate by coordinate, the mean of the clients' moves without the largest and the smallest (the trimmed mean
# of Yin et al., ICML 2018). It is written to a file here, because a rule lives in a module that can be imported.

# %%
(folder / "trimmed.py").write_text('''
"""The mean of the clients' moves, without the extremes, coordinate by coordinate."""

from dataclasses import replace
from typing import ClassVar

import numpy as np

from fedsim import WHOLE, Aggregator, Offer, Traits


class Trimmed(Aggregator):
    """x <- x + mean of the moves that remain when the `trim` largest and smallest are left out."""

    traits: ClassVar[Traits] = Traits(exact=False, unequal_ranks=False, full_model=True, history=False)
    one_pass: ClassVar[bool] = False
    trim: int = 1

    def init(self, model):
        """There is no state."""

    def offer(self, state, model, invitation):
        """The shared adapter, whole, both ways."""
        return Offer(model.adapter.vector, down=WHOLE, up=WHOLE)

    def apply(self, state, model, contributions):
        """Every move is taken from the client's own start."""
        moves = np.sort([c.end.astype(np.float64) - c.start for c in contributions], axis=0)
        cut = min(self.trim, (len(moves) - 1) // 2)
        vector = model.adapter.vector + moves[cut : len(moves) - cut].mean(axis=0)
        return replace(model, adapter=model.adapter.replace(vector.astype(np.float32))), state
''')

# %% [markdown]
# `fedsim.testing` holds a rule to what every rule must do: pure, the same whatever the order of its contributions, the
# right shapes. It says nothing if all is well.

# %%
from fedsim.testing import check_aggregator
from trimmed import Trimmed

check_aggregator(Trimmed(kind="trimmed:Trimmed"))

# %% [markdown]
# ## Is it as good as the mean?
#
# The two runs differ in the rule alone: the same seed, the same clients at the same times, the same batches.

# %%
common = {
    "population": {"preset": "mixed_edge_2025", "clients": 30},
    "task": {
        "kind": "language",
        "sequence": 32,
        "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 20_000},
    },
    "lora": {"r": 4, "alpha": 8},
    "local": {"lr": 5e-3, "steps": 4, "batch": 4},
    "protocol": {"kind": "synchronous", "cohort": 6},
    "budget": {"commits": 8},
    "evaluate": {"every_commits": 2, "windows": 48},
    "runtime": {"executor": "inline"},
}
rules = {"mean": {"kind": "fedit"}, "trimmed": {"kind": "trimmed:Trimmed", "trim": 1}}
runs = [
    fedsim.simulate({"name": f"{name}-{seed}", "seed": seed, **common, "aggregator": rule})
    for name, rule in rules.items()
    for seed in (0, 1)
]
plots.compare(runs)

# %%
for run in runs:
    values = views.curve(run, "perplexity")["value"]
    print(f"{run.name}: perplexity {values.iloc[0]:.2f} -> {values.iloc[-1]:.2f}")

# %% [markdown]
# ## The trace
#
# A recording of a link is a table: a name, seconds from its start, megabits a second. Here a train leaves a tunnel and
# enters the next one: two minutes of signal, one minute of next to nothing. (Recordings of others are imported with
# `fedsim profiles import`: Mahimahi, Lumos5G, SABRE and more.)

# %%
rates = pd.DataFrame(
    {
        "trace": "train",
        "time_s": [0, 120, 180],
        "down_mbps": [12.0, 0.05, 0.05],
        "up_mbps": [4.0, 0.02, 0.02],
    }
)
rates.to_csv(folder / "train.csv", index=False)
rates

# %% [markdown]
# Cellular links follow it, from a place of their own in it, again and again; all others keep their constant rate. The
# schedule alone answers what it does to time, so nothing is trained.


# %%
def schedule(name, rates):
    population = {"preset": "mixed_edge_2025", "clients": 60, **rates}
    return fedsim.simulate(
        {"name": name, **common, "population": population, "budget": {"commits": 20}}, timeline_only=True
    )


constant = schedule("constant", {})
train = schedule(
    "train",
    {"rates": {"cellular": str(folder / "train.csv")}, "rates_at_end": "loop", "rates_phase": "random"},
)


def uploads(run):
    """Seconds of uploads, by kind of link."""
    landed = run.visits[run.visits["outcome"] == "landed"].merge(
        run.clients[["client", "network"]], on="client"
    )
    return (
        (landed["landed_s"] - landed["trained_s"])
        .groupby(landed["network"])
        .agg(["count", "median", "max"])
        .round(1)
    )


pd.concat({run.name: uploads(run) for run in (constant, train)}, axis=1)

# %%
print(
    f"twenty rounds take {constant.info.end_time_s / 3600:.1f} h on constant links and {train.info.end_time_s / 3600:.1f} h on the train"
)
plots.phases(train)

# %% [markdown]
# ## What we have seen
#
# * A rule of one's own is one file of thirty lines, and is held to the same contract as those that ship.
# * With honest clients and two seeds the trimmed mean and the mean end within the numbers printed above of each other.
#   Two seeds do not show that there is no difference, only that there is no large one.
# * On the train the median upload of a cellular client takes longer, while the slowest is no slower: by default a trace replaces
#   a client's own rate, so the worst links are gone as well. `rates_level: client` keeps each client's mean, and the trace is its shape.
# * Twenty rounds take as long as before. A round lasts as long as its slowest training, which is a matter of an hour; a minute
#   in a tunnel does not show.
