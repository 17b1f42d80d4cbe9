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
# # Devices and networks
#
# **What takes the time of a visit: the device or the link? And who cannot take part at all?**
#
# Neither question needs a trained model. The clock knows how long a visit takes before anything is trained, so
# `timeline_only=True` gives the schedule of a run alone: who is asked, when, and how it ends.

# %%
import pandas as pd

import fedsim
from fedsim import plots, views

# %% [markdown]
# ## Who is there
#
# 150 clients are drawn from `mixed_edge_2026`, a table of devices and links whose every figure has its source. Each
# visit is charged as if it trained `gemma-3-270m` on 20,000 tokens. The task itself may be tiny: here it is a quadratic
# with a known answer, which takes no time to prepare.

# %%
settings = {
    "seed": 0,
    "population": {"preset": "mixed_edge_2026", "clients": 150},
    "task": {"kind": "quadratic", "charge_as": {"preset": "gemma-3-270m", "tokens_per_visit": 20_000}},
    "local": {"optimizer": "sgd", "lr": 0.1},
    "protocol": {"kind": "synchronous", "cohort": 15},
    "budget": {"commits": 20},
    "runtime": {"executor": "inline"},
}
run = fedsim.simulate({"name": "world", **settings}, timeline_only=True)
run

# %%
plots.devices(run)

# %% [markdown]
# Four orders of magnitude of speed lie between the slowest phone and a laptop with a graphics card, and links differ
# by three. They do not go together: a fast phone may hang on a slow link.
#
# ## What takes the time

# %%
phases = views.phase_seconds(run)
phases["train_share"] = phases["train_s"] / phases[["download_s", "train_s", "upload_s"]].sum(axis=1)
phases.round(2)

# %%
plots.phases(run)

# %% [markdown]
# Only an adapter travels, 7.6 MB of it, so the link hardly matters here: look at `train_share`. Where the whole model
# travels this turns around. `lora: {full: true}` trains and sends all 268 million parameters, a gigabyte each way.

# %%
whole = fedsim.simulate({"name": "whole-model", **settings, "lora": {"full": True}}, timeline_only=True)
shares = pd.DataFrame(
    {
        each.name: phases[["download_s", "train_s", "upload_s"]].sum()
        / phases[["download_s", "train_s", "upload_s"]].sum().sum()
        for each, phases in ((run, views.phase_seconds(run)), (whole, views.phase_seconds(whole)))
    }
)
shares.round(3)

# %% [markdown]
# ## Who cannot take part
#
# A device whose memory is too small refuses. That is no accident of a run: it is known of a device as soon as model,
# rank and batch are.

# %%
plots.endings(run)

# %%
for each in (run, whole):
    refused = each.visits["outcome"].eq("memory")
    print(f"{each.name}: {refused.mean():.0%} of {len(refused)} visits were refused for lack of memory")

# %% [markdown]
# `memory.when_short` lets a device help itself: smaller batches first, then activations that are computed again.

# %%
helped = fedsim.simulate(
    {"name": "helped", **settings, "memory": {"when_short": ["micro-batch", "checkpoint"]}},
    timeline_only=True,
)
pd.DataFrame(
    {
        each.name: {
            "clients that refuse": each.clients["memory_plan"].eq("refused").sum(),
            "visits landed": each.visits["outcome"].eq("landed").sum(),
            "hours for twenty rounds": round(each.info.end_time_s / 3600, 1),
        }
        for each in (run, helped)
    }
)

# %% [markdown]
# ## Tables of your own
#
# A population may be yours: one table of devices, one of links, CSV or Parquet. `fedsim profiles new devices` (or
# `networks`) writes a file to fill in. These say: two kinds of phones, half of them on 4G and half on fibre.

# %%
from pathlib import Path
from tempfile import mkdtemp

folder = Path(mkdtemp())
(folder / "devices.csv").write_text(
    "device,class,share,eff_lora_lo_gflop_per_s,eff_lora_gflop_per_s,eff_lora_hi_gflop_per_s,ram_gb,"
    "memory_bandwidth_gb_per_s,train_w,idle_w,battery_wh\n"
    "old-phone,phone-low,0.5,3,4,5,6,12,3.0,0.4,13\n"
    "new-phone,phone-high,0.5,30,40,50,12,60,5.0,0.5,18\n"
)
(folder / "links.csv").write_text(
    "network,access,share,down_mbps,up_mbps,down_sigma_ln,up_sigma_ln,down_up_correlation,rtt_ms,rtt_sigma_ln,packet_bytes,"
    "down_radio_w,up_radio_w,down_radio_mw_per_mbps,up_radio_mw_per_mbps\n"
    "lte,cellular,0.5,20,8,0.5,0.5,0.7,50,0.3,1500,2.7,2.7,15,60\n"
    "fibre,wifi,0.5,300,200,0.3,0.3,0.7,10,0.3,1514,0.6,0.6,6,8\n"
)
own = fedsim.simulate(
    {
        "name": "my-phones",
        **settings,
        "population": {"devices": folder / "devices.csv", "networks": folder / "links.csv", "clients": 40},
    },
    timeline_only=True,
)
own.clients.groupby(["device", "network"]).agg(
    clients=("client", "size"),
    gflops=("flops_per_s", lambda s: s.median() / 1e9),
    up_mbps=("up_bytes_per_s", lambda s: s.median() * 8e-6),
).round(1)

# %% [markdown]
# ## What we have seen
#
# * With adapters, training is nearly all of a visit, on every class of devices; with whole models the transfers are a
#   part that counts. Which of the two is the bottleneck follows from what travels.
# * A part of the population never takes part, however long a run is, because the training does not fit. Smaller
#   batches and checkpointing take some of them back; they are slow devices, and a round that waits for them is longer.
#
# All of it is one draw of 150 clients. Shares of devices are assumptions of the preset (its file,
# `presets/mixed_edge_2026.yaml`, says so); another seed draws others.
