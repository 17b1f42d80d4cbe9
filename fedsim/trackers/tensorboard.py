"""Event files for TensorBoard, written with its own package: no torch, no TensorFlow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from fedsim.callbacks import RunBegun, RunEnded
from fedsim.trackers.live import Point, Tracker

if TYPE_CHECKING:
    from tensorboard.compat.proto.summary_pb2 import Summary
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

SUFFIX = ".fedsim"
"""Of the names of our event files: others in the folder are left alone."""


class TensorBoard(Tracker):
    """One folder of event files a run, in `out`. The wall time of an event is virtual time, so that `Relative` shows it exactly."""

    def __init__(self, out: Path) -> None:
        """Take the log directory."""
        self._out = out
        self._writer: EventFileWriter | None = None

    def remove(self, event: RunBegun) -> None:
        """Remove our event files of the run."""
        for path in (self._out / event.name).glob(f"events.out.tfevents.*{SUFFIX}"):
            path.unlink()

    def begin(self, event: RunBegun) -> None:
        """Begin a file, with the settings as text."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto
        from tensorboard.compat.proto.tensor_shape_pb2 import TensorShapeProto
        from tensorboard.compat.proto.types_pb2 import DT_STRING
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._writer = EventFileWriter(str(self._out / event.name), filename_suffix=SUFFIX)
        text = yaml.safe_dump(dict(event.settings), sort_keys=False, allow_unicode=True)
        shown = "\n".join(f"    {line}" for line in text.splitlines())  # a block of code in Markdown
        plugin = SummaryMetadata.PluginData(plugin_name="text")
        one = TensorShapeProto(dim=[TensorShapeProto.Dim(size=1)])
        tensor = TensorProto(dtype=DT_STRING, string_val=[shown.encode()], tensor_shape=one)
        metadata = SummaryMetadata(plugin_data=plugin)
        self._add(0.0, 0, Summary(value=[Summary.Value(tag="settings", metadata=metadata, tensor=tensor)]))

    def write(self, point: Point, values: Mapping[str, float]) -> None:
        """Add scalars."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(point.time_s, point.step, Summary(value=scalars))

    def end(self, event: RunEnded) -> None:
        """Close the file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _add(self, time_s: float, step: int, summary: Summary) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        assert self._writer is not None
        self._writer.add_event(Event(wall_time=time_s, step=step, summary=summary))
