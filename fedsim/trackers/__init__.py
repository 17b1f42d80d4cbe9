"""Runs shown in TensorBoard, Weights & Biases and MLflow, live or afterwards; uses callbacks and tables.

    fedsim.simulate("my.yaml", callbacks=[fedsim.trackers.tracked("tensorboard", Path("tb"))])
    fedsim.trackers.export(fedsim.load("runs/my"), "tensorboard", Path("tb"))

Both hand the same events to the same listener, so what stands in a tracker is the same. docs/trackers.md has the names.
"""

from fedsim.trackers.live import AXES, Axis, Tracked, Tracker
from fedsim.trackers.making import KINDS, Exported, export, tracked

__all__ = ["AXES", "KINDS", "Axis", "Exported", "Tracked", "Tracker", "export", "tracked"]
