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
# # Synchronous or asynchronous?
#
# **Who reaches a given perplexity sooner: rounds that wait until a deadline, or a server that never waits?**
#
# Synchronous rounds ask a cohort and wait; the slowest decide, or are cut off. FedBuff (Nguyen et al., AISTATS 2022)
# keeps a number of clients at work and commits whenever a buffer is full; nobody waits, but updates are stale.

# %%
import pandas as pd

import fedsim
from fedsim import plots, views

# %% [markdown]
# ## Two servers, three seeds
#
# Both work with the same fleet, the same data and the same version 0 for each seed, and each has six clients at work at
# a time. Scores are taken every hour of virtual time of both, so that no server is looked at more
# often, and the target is declared *before* the runs.

# %%
common = {
    "population": {"preset": "mixed_edge_2025", "clients": 40, "availability": "charging"},
    "task": {
        "kind": "language",
        "sequence": 32,
        "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 20_000},
    },
    "lora": {"r": 4, "alpha": 8},
    "local": {"lr": 5e-3, "steps": 4, "batch": 4},
    "budget": {"time_s": 5 * 3600},
    "evaluate": {"every_s": 3600, "windows": 48, "targets": [23.0]},
    "runtime": {"executor": "inline"},
}
servers = {
    "rounds": {"protocol": {"kind": "synchronous", "cohort": 5, "over_select": 1.2, "deadline_s": 3600}},
    "fedbuff": {
        "protocol": {"kind": "buffered", "concurrency": 6, "buffer": 5},
        "aggregator": {"kind": "fedit", "normalize": "K"},
    },
}
SEEDS = range(3)
runs = {
    name: [fedsim.simulate({"name": f"{name}-{seed}", "seed": seed, **common, **blocks}) for seed in SEEDS]
    for name, blocks in servers.items()
}

# %%
plots.compare([*runs["rounds"], *runs["fedbuff"]])

# %% [markdown]
# Bands are one standard deviation over the three seeds.
#
# ## Is there a difference?
#
# Runs of equal seeds are pairs. The difference within a pair is sharper than the difference of two means, because what
# the pair has in common falls out.

# %%
uploads = min(run.info.totals.up_bytes for run in runs["rounds"])
pd.concat(
    {
        "after five hours": views.paired_difference(
            runs["fedbuff"], runs["rounds"], "perplexity", time_s=5 * 3600
        ),
        f"after {uploads / 1e6:.0f} MB": views.paired_difference(
            runs["fedbuff"], runs["rounds"], "perplexity", up_bytes=uploads
        ),
    }
).droplevel(1)[["pairs", "mean", "low", "high"]].round(2)

# %% [markdown]
# The mean of perplexity of FedBuff minus that of rounds, with a 95 % interval from `low` to `high`: below 0 FedBuff is ahead. When was the
# target reached? A run that was not there when it ended is *censored*: its time is longer than it was watched.

# %%
reached = views.time_to_target([*runs["rounds"], *runs["fedbuff"]], "perplexity", 23.0)
reached[["run", "version", "time_s", "up_bytes", "value", "reached", "watched_s"]].round(2)

# %% [markdown]
# ## Why?
#
# Look at one run of each. Rounds lose what comes after the deadline; FedBuff loses next to nothing, and pays with staleness.

# %%
rounds, fedbuff = runs["rounds"][0], runs["fedbuff"][0]
plots.endings(rounds)

# %%
plots.staleness(fedbuff)

# %%
for run in (rounds, fedbuff):
    share = views.wasted_work(run).attrs["share"]
    print(
        f"{run.name}: {len(run.commits)} commits; of the energy {share['joules']:.0%} went into visits that changed no model"
    )

# %% [markdown]
# The map of the first three hours shows the waiting: between the end of a bar and the next commit (a thin line) a
# device of a round has nothing to do.

# %%
plots.to_matplotlib(plots.gantt(rounds, 0, 3 * 3600))

# %% [markdown]
# ## What we have seen
#
# * At equal *time* FedBuff has made two to three times as many versions and reaches the target in more of the runs, sooner. The mean
#   difference after five hours is in its favour, but an interval over three pairs is wide: where it covers 0, three seeds do
#   not show that the next fleet sees the same.
# * At equal *uploads* the order turns: a fresh update is worth more than a stale one, and rounds have none that is stale. Which axis counts
#   depends on who pays: the people who wait, or those whose data plan it is.
# * Most of the energy of the rounds goes into visits that change no model. A longer deadline, or asking more clients, trades
#   that against time: the deadline of an hour is our choice, not a law of rounds.
# * Three seeds are very few. An interval over three pairs assumes that differences are normal, and it is wide. For a
#   paper take five and more, and tune both servers with the same effort ([how to compare runs](../docs/statistics.md)).
