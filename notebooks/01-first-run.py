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
# # A first run
#
# Twenty phones, tablets and laptops fine-tune a small language model together. Each trains a LoRA adapter
# on its own text; the server averages what arrives. The training is real. The *time* is virtual: it follows
# from each device's speed, link and charging hours, so what takes days out there takes seconds here.

# %%
import fedsim
from fedsim import plots, views

# %% [markdown]
# ## The experiment
#
# One object says everything that determines the result. The model and the text come with the package. The
# clock charges every visit as if the model were `gemma-3-270m`: a tiny model would finish in seconds on any
# phone, and nobody would be lost.

# %%
experiment = fedsim.Experiment(
    name="first-run",
    seed=0,
    population={"preset": "mixed_edge_2025", "clients": 20, "availability": "charging"},
    task={"kind": "language", "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 20_000}},
    lora={"r": 4, "alpha": 8},
    local={"lr": 1e-2, "steps": 8},
    protocol={"kind": "synchronous", "cohort": 6, "deadline_s": 3600},
    budget={"commits": 10},
    evaluate={"every_commits": 2, "windows": 32},
    runtime={"executor": "inline"},
)
run = fedsim.simulate(experiment)
run

# %% [markdown]
# ## What a run leaves behind
#
# Tidy tables, with units in the column names. `visits` has one row for every time a client was asked,
# whether its update arrived or not.

# %%
run.visits[["client", "version", "dispatched_s", "ended_s", "outcome", "up_bytes", "joules"]].head(8)

# %%
run.commits[["version", "time_s", "updates", "total_up_bytes", "total_joules"]].tail(3)

# %% [markdown]
# ## Did it learn, and how long did that take?
#
# `scores` holds the metrics of every version that was evaluated on text that no client trains on.

# %%
plots.progress(run)

# %% [markdown]
# ## Who was lost, and why?
#
# A visit can end before its update lands: the owner unplugs the phone, the memory is too small, the deadline
# passes. What such a visit had used by then is paid for all the same.

# %%
plots.endings(run)

# %%
views.wasted_work(run)

# %% [markdown]
# ## Where does a visit's time go?

# %%
plots.phases(run)

# %% [markdown]
# ## And the uplink?
#
# Only the adapters travel. Full-model FedAvg would have sent every parameter with every update.

# %%
views.uplink_reduction(run).T

# %% [markdown]
# ## For a paper
#
# Figures are Plotly figures, and with one call figures of matplotlib, which can be saved as PDF.

# %%
plots.to_matplotlib(plots.progress(run))

# %% [markdown]
# Next: `fedsim report` turns a run folder into a page with all of this, and compares several runs at equal
# virtual time, bytes and energy.
