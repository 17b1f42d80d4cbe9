"""The image demo on what ships with fedsim: digits that the model has never seen, one digit a client.

A small diffusion model knows the handwritten digits 0 to 4. Fifty devices of `mixed_edge_2025` have images of 5 to 9,
each of one digit only, and federate LoRA adapters of its attention and convolutions, in step and out of step. The
clock charges every visit as the denoiser of DDPM on CIFAR-10.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fedsim.cli.demos.demo import Demo, uploads
from fedsim.records.quantities import plural

if TYPE_CHECKING:
    from fedsim.records.run import Run

_COMMON: dict[str, Any] = {
    "seed": 0,
    "population": {"preset": "mixed_edge_2025", "clients": 50, "availability": "charging"},
    "task": {
        "kind": "images",
        "model": "builtin",
        "data": "builtin",
        "partition": {"kind": "pathological", "classes": 1},
        "samples": 250,
        "charge_as": {
            "preset": "ddpm-cifar10-32",
            "r": 8,
            "targets": ["attention", "resnets"],
            "images_per_visit": 256,
        },
    },
    "lora": {"r": 8, "alpha": 8, "targets": ["attention", "resnets"]},
    "local": {"optimizer": "adamw", "lr": 2.0e-3, "steps": 8, "batch": 32},
    "budget": {"time_s": 9000},
    "evaluate": {"every_commits": 8, "splits": ["test", "samples"], "ema": 0.8},
    "personal": {"kind": "fine-tune", "epochs": 2, "clients": 3},
}

_PROTOCOLS: dict[str, dict[str, Any]] = {
    "images-sync": {
        "protocol": {"kind": "synchronous", "cohort": 5, "over_select": 1.2, "deadline_s": 2400},
    },
    "images-fedbuff": {
        "protocol": {"kind": "buffered", "concurrency": 6, "buffer": 5, "once_per_buffer": True},
        "aggregator": {"kind": "fedit", "normalize": "K"},
    },
}


def verdict(runs: Sequence[Run]) -> str:
    """Return what the models draw before and after, and what it took, in a few lines."""
    from fedsim.records import views
    from fedsim.records.quantities import percent

    facts = runs[0].info.task
    metric = str(views.headline(runs[0], "samples"))
    real = views.curve(runs[0], f"{metric} of test images", split="samples")["value"].iloc[0]
    count, known = facts["samples"], facts["reference_images"]
    lines = [
        f"{metric} of {count} samples to the {known} images of the clients (real test images: {real:.0f}):"
    ]
    for run in runs:
        curve = views.curve(run, metric, split="samples")["value"]
        lines.append(
            f"  {run.name:<15} {curve.iloc[0]:6.0f} -> {curve.iloc[-1]:.0f}"
            f"   {plural(len(run.commits), 'commit')}, {plural(len(run.visits), 'visit')}"
        )
    names = facts["class_names"]
    lines.append(
        f"Samples that a classifier takes for {', '.join(names)}, which the pretrained model never saw:"
    )
    for run in runs:
        shares = [views.curve(run, f"share of {name}", split="samples")["value"] for name in names]
        total = views.curve(run, "share of the clients' classes", split="samples")["value"]
        each = ", ".join(f"{name}: {percent(s.iloc[-1])}" for name, s in zip(names, shares, strict=True))
        lines.append(f"  {run.name:<15} {percent(total.iloc[0])} -> {percent(total.iloc[-1])}   ({each})")
    lines += uploads(runs)
    pictures = [f"{run.folder}/samples/after.png" for run in runs if run.folder is not None]
    return "\n".join([*lines, f"pictures: {', '.join(pictures)}"] if pictures else lines)


IMAGES = Demo("demo-images", _COMMON, _PROTOCOLS, verdict)
