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
# # A million clients on a timeline
#
# **How long does a round of a thousand reports take in a population of a million devices, and who is in it?**
#
# The schedule of a run needs no training, and populations are arrays: one number more a client and column, no object.
# Here 100,000 clients are drawn, so that the page is quick on any machine. Set `CLIENTS = 1_000_000` for the real
# thing: it takes ten times as long and about two gigabytes.

# %%
import resource
import time

import fedsim
from fedsim import plots, views

CLIENTS = 100_000

# %%
settings = {
    "name": "many",
    "population": {
        "preset": "mixed_edge_2026",
        "clients": CLIENTS,
        "availability": "charging",
        "time_zones": [-8, 0, 5.5],
    },
    "task": {"kind": "quadratic", "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 5_000}},
    "local": {"optimizer": "sgd", "lr": 0.1},
    "network": {"sharing": "private"},  # every transfer as if it were alone at the server: the cheap way
    "protocol": {"kind": "synchronous", "cohort": 1000, "over_select": 1.6, "deadline_s": 3600},
    "budget": {"commits": 8},
}
began_s = time.perf_counter()
run = fedsim.simulate(settings, timeline_only=True)
seconds = time.perf_counter() - began_s
run

# %%
memory_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6  # Linux counts kilobytes
print(
    f"{run.count('clients'):,} clients, {run.count('visits'):,} visits: {seconds:.0f} s, {memory_gb:.1f} GB at most"
)

# %% [markdown]
# ## How long is a round?

# %%
ends_h = run.commits["time_s"] / 3600
print("hours between commits:", ends_h.diff().fillna(ends_h.iloc[0]).round(2).tolist())
plots.endings(run)

# %% [markdown]
# ## Who is in it?
#
# A round takes whoever reports first, so fast devices are in the model more often than they are in the world.

# %%
plots.participation(run)

# %%
shares = views.participation_by_tier(run)
shares["over_represented"] = (shares["update_share"] / shares["client_share"]).round(2)
shares

# %% [markdown]
# ## Columns, not tables
#
# A long table need not fit into memory: `run.frame` reads some columns, `run.columns` one, `run.blocks` a piece at a time.

# %%
visits = run.frame("visits", "outcome", "up_bytes", "joules")
visits.groupby("outcome", observed=True).sum()

# %% [markdown]
# ## What we have seen
#
# * A thousand reports take about as long as the slowest of those that the server waits for, whatever the size of the population: what
#   grows with it is the choice, not the round.
# * Classes of devices are not in the model as they are in the world. The slowest phones, more than a quarter of the population, are in
#   no version at all, because the training does not fit their memory; fast phones and laptops are in it about twice as often as
#   their share.
# * One seed and eight rounds of one afternoon: who charges when is the rhythm of a day, and eight rounds do not see a night.
