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
# # Personalisation
#
# **Who gains from a personal adapter on top of the shared one, and does it matter when it is trained?**
#
# Clients of this run write about different things (a Dirichlet split with a small alpha). One shared model is a
# compromise. A personal adapter, which never leaves its device, may take the compromise back.

# %%
import pandas as pd

import fedsim
from fedsim import plots, views

# %% [markdown]
# ## Two ways
#
# * `fine-tune`: after the run every client trains the shared adapter a little further on its own text.
# * `ditto` (Li et al., ICML 2021): in every visit a client trains a second adapter that is drawn to the shared one.
#
# What a client gains is measured on text of its own that nobody has trained on: shared minus personal perplexity.

# %%
common = {
    "seed": 0,
    "population": {"preset": "mixed_edge_2025", "clients": 80},
    "task": {
        "kind": "language",
        "sequence": 32,
        "partition": {"kind": "dirichlet", "alpha": 0.1},
        "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 20_000},
    },
    "lora": {"r": 4, "alpha": 8},
    "local": {"lr": 5e-3, "steps": 6, "batch": 4},
    "protocol": {"kind": "buffered", "concurrency": 12, "buffer": 8},
    "budget": {"commits": 8},
    "evaluate": {"every_commits": 4, "windows": 48},
    "runtime": {"executor": "inline"},
}
ways = {
    "fine-tune": {"kind": "fine-tune", "epochs": 1, "lr": 1e-3, "clients": 16},
    "ditto": {"kind": "ditto", "lam": 0.1, "lr": 1e-3, "clients": 16},
}
runs = {
    name: fedsim.simulate({"name": name, **common, "personal": personal}) for name, personal in ways.items()
}
runs["fine-tune"].personal.head()

# %% [markdown]
# ## Who gains?

# %%
plots.gains(runs["fine-tune"])

# %%
plots.gains(runs["ditto"])

# %%
gains = pd.concat({name: run.personal for name, run in runs.items()}, names=["way"]).reset_index("way")
gains = gains[gains["metric"] == "perplexity"]
gains.groupby("way")["gain"].describe()[["count", "mean", "min", "50%", "max"]].round(2)

# %% [markdown]
# Ditto's mean hides something: `seen` says in how many visits of a client its update landed.

# %%
gains.assign(seen=gains["seen"].clip(upper=2)).groupby(["way", "seen"])["gain"].agg(
    ["count", "mean", "min", "max"]
).round(2)

# %% [markdown]
# Of `fine-tune`: is it those with much text who gain, or those whom the shared model serves badly?

# %%
one = gains[gains["way"] == "fine-tune"].merge(runs["fine-tune"].clients[["client", "examples"]], on="client")
one[["gain", "metric_global", "examples"]].corr(method="spearman")["gain"].round(2)

# %% [markdown]
# ## What it costs
#
# A second adapter is trained in the same visit, on the same battery. Both runs made the same number of versions.

# %%
costs = pd.DataFrame(
    {
        name: {
            "virtual hours": run.info.end_time_s / 3600,
            "joules": run.info.totals.joules,
            "uploaded bytes": run.info.totals.up_bytes,
        }
        for name, run in runs.items()
    }
).T
costs.round(1)

# %% [markdown]
# ## What we have seen
#
# * After the run, a little more training on one's own text helps nearly everybody, those most whom the shared model serves badly (the
#   correlation of the gain with `metric_global`).
# * Ditto's second adapter starts at version 0 and learns in the client's own visits alone. Who was seen has an adapter of a
#   few small steps, behind the shared one, which all visits have trained; who was never seen begins from the shared one after the
#   run. Ditto wants many visits of each client, and this population is asked too seldom for it. (A row has four to seven
#   clients: it does not tell how the gap changes with the number of visits.)
# * Its second training is paid in virtual time and energy, not in bytes: nothing personal travels.
# * Sixteen clients and one seed: a hint, not a finding. More visits a client, another `lam` or another learning rate may turn it.
