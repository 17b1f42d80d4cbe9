"""Which way a model is trained: written out, swapped, or stock PEFT."""

from __future__ import annotations

from typing import Any, Literal

from fedsim.adapters.adapter import Layout
from fedsim.errors import ExperimentError, message
from fedsim.training.backbone import Backbone, Path

Trained = Literal["fused", "swapped", "sequential"]
"""How a model really trains: a `Path` that is no longer `auto`."""


def resolved(model: Any, layout: Layout, path: Path) -> Trained:
    """Return the path that trains `layout`; the model may be without weights (meta device).

    `auto` is the fused decoder where there is one, else the module swap, else (whole models, layers
    that cannot be swapped) stock PEFT one client after the other.

    Raises:
        ExperimentError: the path was asked for and cannot train this model.
    """
    from fedsim.training import fused
    from fedsim.training.stacked import swapped

    if path == "sequential" or (path == "auto" and layout.full):
        return "sequential"
    if layout.full:
        why, fix = "a whole model trains one client at a time", "set numerics.training: sequential"
        raise ExperimentError(message("numerics.training", why, got=path, fix=fix))
    reason = None if path == "swapped" else fused.refusal(model, layout)
    if path != "swapped" and reason is None:
        return "fused"
    if path == "fused":
        name = getattr(model.config, "model_type", type(model).__name__)
        why = f"there is no fused decoder for {name} with these targets: {reason}"
        raise ExperimentError(message("numerics.training", why, fix="set numerics.training: auto or swapped"))
    if path == "auto" and swapped.refusal(model, layout) is not None:
        return "sequential"
    return "swapped"


def choose(model: Any, layout: Layout, path: Path = "auto") -> Backbone | None:
    """Return what trains `layout` on a loaded model, or None for the sequential path.

    The model itself is not changed; its weights are shared, frozen, in their dtype and on their device.

    Raises:
        ExperimentError: see `resolved`.
    """
    from fedsim.training import fused
    from fedsim.training.stacked import swapped

    trained = resolved(model, layout, path)
    if trained == "sequential":
        return None
    if trained == "swapped":
        return swapped.Swapped(model, layout)
    return fused.fused(model, layout)
