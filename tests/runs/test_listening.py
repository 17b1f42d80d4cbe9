"""A Ray that fedsim starts listens on this machine only, without a dashboard, and knows no secret by its command lines."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fedsim.config.experiment import Experiment
from fedsim.runs.simulation import simulate

pytestmark = [pytest.mark.ray, pytest.mark.slow]

SETTINGS = {
    "task": {"kind": "quadratic"},
    "population": {"preset": "homogeneous", "clients": 2},
    "budget": {"commits": 1},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 1},
    "protocol": {"kind": "synchronous", "cohort": 1},
    "runtime": {"executor": "ray", "workers": 1},
}
LISTENING = "0A"
LOOPBACK = ("0100007F", "0" * 24 + "01000000", "0" * 16 + "FFFF0000" + "0100007F")
"""127.0.0.1, ::1 and 127.0.0.1 as IPv6, as Linux writes them."""


def descendants():
    """The processes that this one has started, and those that they have."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue  # it has ended
    found = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= more
    return found


def listening(pids):
    """(address, port) of the sockets on which these processes wait for somebody."""
    inodes = set()
    for pid in pids:
        try:
            links = [link.readlink().name for link in Path(f"/proc/{pid}/fd").iterdir()]
        except OSError:
            continue
        inodes |= {link[8:-1] for link in links if link.startswith("socket:[")}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == LISTENING and words[9] in inodes:
                address, _, port = words[1].partition(":")
                yield address, int(port, 16)


def test_ray_of_our_own_listens_on_loopback_only(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "a-secret-of-the-environment")
    sockets, lines = [], []

    def look(kind, _facts):
        if kind == "commit":
            pids = descendants()
            sockets.extend(listening(pids))
            for pid in pids - {os.getpid()}:
                try:
                    lines.append(Path(f"/proc/{pid}/cmdline").read_bytes())
                except OSError:
                    continue

    simulate(Experiment.model_validate(SETTINGS), out=tmp_path / "run", on_event=look)

    assert len(sockets) > 2
    assert [socket for socket in sockets if socket[0] not in LOOPBACK] == []
    assert 8265 not in {port for _, port in sockets}
    assert not any(b"dashboard.py" in line or b"a-secret-of-the-environment" in line for line in lines)
    assert any(b"raylet" in line for line in lines)
