"""Runs of MLflow, in a local folder unless it is asked for otherwise: nothing is sent."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.callbacks import RunBegun, RunEnded
from fedsim.trackers.live import Point, Tracker, identity

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

EXPERIMENT = "fedsim"
TAG = "fedsim.run"
"""Names a run of ours; MLflow's own identifiers are new each time."""
LONGEST = 500
"""Characters of a setting that are kept."""
STATUS = {"done": "FINISHED", "running": "RUNNING", "interrupted": "KILLED", "killed": "KILLED"}


class Mlflow(Tracker):
    """A run a run, in the store of files `out/mlruns`. The timestamp of a value is virtual time in milliseconds."""

    def __init__(self, out: Path, *, online: bool) -> None:
        """Take the folder, and whether MLFLOW_TRACKING_URI is written to instead."""
        self._out, self._online = out, online
        self._client: MlflowClient | None = None
        self._run = ""

    def remove(self, event: RunBegun) -> None:
        """Delete the run of that identity, if there is one."""
        client = self._connected()
        found = self._found(client, event)
        if found:
            client.delete_run(found)

    def begin(self, event: RunBegun) -> None:
        """Begin a run, or go on with the one of that identity."""
        client = self._connected()
        self._run = self._found(client, event)
        if self._run:
            client.set_terminated(self._run, "RUNNING")
            return
        tags = {TAG: identity(event), "fedsim.folder": str(event.folder or "")}
        run = client.create_run(self._experiment(client), run_name=event.name, tags=tags)
        self._run = run.info.run_id
        for key, value in _flat(event.settings):
            client.log_param(self._run, key, value[:LONGEST])

    def write(self, point: Point, values: Mapping[str, float]) -> None:
        """Log values."""
        client, timestamp = self._connected(), round(point.time_s * 1000)
        for name, value in values.items():
            client.log_metric(self._run, _allowed(name), value, timestamp=timestamp, step=point.step)

    def end(self, event: RunEnded) -> None:
        """Say how it ended."""
        client = self._connected()
        client.set_tag(self._run, "fedsim.reason", event.reason)
        client.set_terminated(self._run, STATUS.get(event.status, "FAILED"))

    def _connected(self) -> MlflowClient:
        if self._client is None:
            os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # stores of files are asked for by name
            from mlflow.tracking import MlflowClient

            uri = None if self._online else (self._out.absolute() / "mlruns").as_uri()
            self._client = MlflowClient(tracking_uri=uri)
        return self._client

    def _experiment(self, client: MlflowClient) -> str:
        known = client.get_experiment_by_name(EXPERIMENT)
        return str(client.create_experiment(EXPERIMENT) if known is None else known.experiment_id)

    def _found(self, client: MlflowClient, event: RunBegun) -> str:
        runs = client.search_runs([self._experiment(client)], f"tags.`{TAG}` = '{identity(event)}'")
        return str(runs[0].info.run_id) if runs else ""


def _flat(settings: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the keys that are set and their values, as `-s` takes them."""
    if isinstance(settings, Mapping) and settings:
        for key, value in settings.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif settings is not None:
        yield path, str(settings)


def _allowed(name: str) -> str:
    """Return a name with the characters that MLflow takes; others become `_`."""
    return "".join(c if c.isalnum() or c in "_-. /:" else "_" for c in name)
