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
# # A Ray cluster
#
# **Does a run on a cluster give the same result as one in this process?**
#
# A run has one driver, with the clock, the server and the tables, and workers that train. The workers may be those of a
# Ray cluster on several machines. This page has one machine, so it starts a cluster of two nodes on it: two raylets, each
# with one CPU, that know each other by their addresses only, as two machines would.

# %%
import os
import warnings

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
warnings.filterwarnings(
    "ignore", message="IProgress not found"
)  # Ray asks for ipywidgets, and needs none here

import pandas as pd
from ray.cluster_utils import Cluster

import fedsim

# %%
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
cluster.address

# %% [markdown]
# On machines of your own it is `ray start --head --port 6379` on the first and `ray start --address FIRST:6379` on the others
# ([all about clusters](../docs/cluster.md)).
#
# ## The same experiment twice

# %%
settings = {
    "seed": 0,
    "population": {"preset": "mixed_edge_2025", "clients": 20, "availability": "charging"},
    "task": {
        "kind": "language",
        "sequence": 32,
        "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 20_000},
    },
    "lora": {"r": 4, "alpha": 8},
    "local": {"lr": 5e-3, "steps": 4, "batch": 4},
    "protocol": {"kind": "buffered", "concurrency": 6, "buffer": 4},
    "budget": {"commits": 4},
    "evaluate": {"every_commits": 2, "windows": 32},
}
here = fedsim.simulate({"name": "here", **settings, "runtime": {"executor": "inline"}})
there = fedsim.simulate(
    {"name": "cluster", **settings, "runtime": {"address": cluster.address, "workers": 2}}
)
there

# %%
print(f"{there.info.workers} workers")
for table in ("clients", "visits", "commits", "scores"):
    pd.testing.assert_frame_equal(here.tables[table], there.tables[table], check_exact=True)
    print(f"{table}: equal to the bit")

# %%
from fedsim import plots

plots.progress(there)

# %%
cluster.shutdown()

# %% [markdown]
# ## What we have seen
#
# * The tables are equal to the bit: where the work runs changes no result. That holds on machines with equal processors; on
#   unequal ones schedules stay equal to the bit, and losses agree to rounding.
# * On two nodes of one machine nothing is faster, and for a model this small Ray's start takes longer than the run. A cluster pays
#   when a visit trains for seconds.
