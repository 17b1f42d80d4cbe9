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
import matplotlib.pyplot as plt

import fedsim
from fedsim import views

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
metric = views.headline(run)
curve = views.curve(run, metric, x="time_s")

fig, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
axes.plot(curve["time_s"] / 3600, curve["value"], marker="o", color="#0072B2")
axes.set(xlabel="virtual time [h]", ylabel=metric, title="The global model on the test text")
axes.grid(alpha=0.3)

# %% [markdown]
# ## Who was lost, and why?
#
# A visit can end before its update lands: the owner unplugs the phone, the memory is too small, the deadline
# passes. What such a visit had used by then is paid for all the same.

# %%
losses = views.losses_by_cause(run)
losses = losses[losses.sum(axis=1) > 0]
colours = {"landed": "#009E73", "offline": "#E69F00", "memory": "#D55E00", "late": "#CC79A7"}

fig, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
losses.plot.barh(stacked=True, ax=axes, color=[colours.get(name, "#9AA0A6") for name in losses.columns])
axes.invert_yaxis()
axes.set(xlabel="visits", ylabel="", title="How visits ended, slowest tier first")
axes.legend(frameon=False)

# %%
views.wasted_work(run)

# %% [markdown]
# ## Where does a visit's time go?

# %%
phases = views.phase_seconds(run)[["download_s", "train_s", "upload_s"]] / 60

fig, axes = plt.subplots(figsize=(7, 3.2), layout="constrained")
phases.plot.barh(stacked=True, ax=axes, color=["#56B4E9", "#0072B2", "#E69F00"])
axes.invert_yaxis()
axes.set(xlabel="mean virtual time of a landed visit [min]", ylabel="")
axes.legend(["download", "train", "upload"], frameon=False)

# %% [markdown]
# ## And the uplink?
#
# Only the adapters travel. Full-model FedAvg would have sent every parameter with every update.

# %%
views.uplink_reduction(run).T

# %% [markdown]
# Next: `fedsim report` turns a run folder into a page with all of this, and compares several runs at equal
# virtual time, bytes and energy.
