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
# # Images
#
# **Can devices that each hold one digit teach a diffusion model digits that it has never seen?**
#
# The embedded denoiser knows 0 to 4. The clients hold 5 to 9, one digit each, and federate LoRA adapters of its attention
# and convolutions. The clock charges every visit as the denoiser of DDPM on CIFAR-10.

# %%
from pathlib import Path
from tempfile import mkdtemp

from IPython.display import Image

import fedsim
from fedsim import plots, views

# %%
experiment = fedsim.Experiment(
    name="digits",
    seed=0,
    population={"preset": "mixed_edge_2025", "clients": 25},
    task={
        "kind": "images",
        "partition": {"kind": "pathological", "classes": 1},
        "samples": 50,
        "charge_as": {
            "preset": "ddpm-cifar10-32",
            "r": 8,
            "targets": ["attention", "resnets"],
            "images_per_visit": 256,
        },
    },
    lora={"r": 8, "alpha": 8, "targets": ["attention", "resnets"]},
    local={"lr": 2e-3, "steps": 6, "batch": 16},
    protocol={"kind": "buffered", "concurrency": 6, "buffer": 5},
    budget={"commits": 6},
    evaluate={"every_commits": 6, "splits": ["test", "samples"]},
    runtime={"executor": "inline"},
)
run = fedsim.simulate(experiment, out=Path(mkdtemp()) / "digits")
run

# %% [markdown]
# ## What the model draws
#
# The same noise, before and after. The loss is the squared error at fixed noise and timesteps; `FD` is the distance of two sets
# of features, here of a small classifier of digits.

# %%
Image(run.folder / "samples" / "before.png")

# %%
Image(run.folder / "samples" / "after.png")

# %%
plots.progress(run)

# %%
scores = run.scores[run.scores["split"] == "samples"].pivot_table(
    index="version", columns="metric", values="value"
)
scores.round(3).T

# %% [markdown]
# ## Who taught it?

# %%
plots.participation(run)

# %%
landed = run.visits["outcome"].eq("landed").sum()
labels = run.info.task["class_names"]
print(f"{landed} updates landed, of clients with the digits {', '.join(labels)}")

# %% [markdown]
# ## What we have seen
#
# * After six commits `FD` is about half of what it was, and a classifier takes a good part of the samples for digits that the model had
#   never seen ("share of the clients' classes"). The grid shows the same: strokes of fives to nines among the old ones.
# * The distance of real test images ("of test images") is the floor: there is a long way to go.
# * Fifty samples are few: `FD` of fifty images is biased upwards and moves with the seed. The demo (`fedsim demo --images`)
#   draws 250 and runs four times as long.
# * Which digits it learns depends on whose updates land. Here everybody is always there; `availability: charging` makes it a lottery.
