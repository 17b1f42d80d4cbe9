"""Broken settings of links: each is answered at the gate with one sentence, a fix and exit code 2, before anything starts."""

from __future__ import annotations

import copy

import pytest
from worlds.text_files import written

from fedsim.cli.app import call

SOUND = {
    "population": {"preset": "mixed_edge_2026", "clients": 20},
    "task": {"kind": "quadratic"},
    "local": {"optimizer": "sgd"},
    "budget": {"commits": 2},
    "runtime": {"executor": "inline"},
}
LOSSY = {"congestion": "loss-based", "loss": 0.01}
BURSTS = {"loss": 0.05, "share": 0.1}
HOMES = {"homes": {"clients": 2}}

CASES = {
    "nothing shared": ({"population.shared_links": {}}, "names no links that are shared"),
    "an unknown group": ({"population.shared_links": {"streets": {}}}, "streets"),
    "half a client a home": ({"population.shared_links": {"homes": {"clients": 0.5}}}, "homes.clients"),
    "no clients in a cell": ({"population.shared_links": {"cells": {"clients": 0}}}, "cells.clients"),
    "a home that is a word": ({"population.shared_links": {"homes": "small"}}, "shared_links.homes"),
    "a cell that carries nothing": ({"population.shared_links": {"cells": {"down_mbps": 0}}}, "cells.down_mbps"),
    "a region without a rate": ({"population.shared_links": {"regions": {"up_mbps": 5}}}, "regions.down_mbps"),
    "no regions": (
        {"population.shared_links": {"regions": {"regions": 0, "down_mbps": 5, "up_mbps": 5}}},
        "regions.regions",
    ),
    "shared links that are private": (
        {"population.shared_links": HOMES, "network.sharing": "private"},
        "has no meaning with network.sharing: private",
    ),
    "cells of those on Wi-Fi": (
        {"population.shared_links": {"cells": {}}, "population.wifi_only": True},
        "no client is on a cellular network",
    ),
    "cells of those that charge": (
        {"population.shared_links": {"cells": {}}, "population.availability": "charging"},
        "no client is on a cellular network",
    ),
    "shared links of those that move": (
        {"population.shared_links": HOMES, "population.links": "by-place"},
        "cannot go with population.links: by-place",
    ),
    "a CDN with nothing to send": ({"network": {"backbone_from": "cdn"}}, "has nothing to send"),
    "an unknown CDN": ({"network": {"backbone": "first_visit", "backbone_from": "edge"}}, "backbone_from"),
    "bursts under BBR": ({"network": {"loss_bursts": BURSTS}}, "has no effect with bbr"),
    "bursts of no more loss": ({"network": {**LOSSY, "loss_bursts": {**BURSTS, "loss": 0.01}}}, "is no more than network.loss"),
    "bursts all the time": ({"network": {**LOSSY, "loss_bursts": {**BURSTS, "share": 0.95}}}, "loss_bursts.share"),
    "bursts of a blink": ({"network": {**LOSSY, "loss_bursts": {**BURSTS, "mean_s": 0.1}}}, "loss_bursts.mean_s"),
    "no calm between bursts": (
        {"network": {**LOSSY, "loss_bursts": {"loss": 0.05, "share": 0.8, "mean_s": 2}}},
        "mean_s must be at least 4",
    ),
    "a burst that loses all": ({"network": {**LOSSY, "loss_bursts": {**BURSTS, "loss": 1}}}, "loss_bursts.loss"),
    "bursts without a share": ({"network": {**LOSSY, "loss_bursts": {"loss": 0.05}}}, "loss_bursts.share"),
    "an old TLS": ({"network": {"tls": {"version": 1.1}}}, "tls.version"),
    "early data before its time": (
        {"network": {"tls": {"version": 1.2, "early_data": True}}},
        "which TLS 1.2 does not know",
    ),
    "early data of no session": (
        {"network": {"tls": {"early_data": True, "ticket_s": 0}}},
        "no session is ever resumed",
    ),
    "a ticket for a month": ({"network": {"tls": {"ticket_s": 2_592_000}}}, "tls.ticket_s"),
    "TLS that is a word": ({"network": {"tls": "on"}}, "network.tls"),
    "TLS without TCP": (
        {"network": {"model": "size-over-rate", "tls": {}}},
        "has no meaning with network.model: size-over-rate",
    ),
}  # fmt: skip


def with_(changes):
    experiment = copy.deepcopy(SOUND)
    for name, value in changes.items():
        *blocks, last = name.split(".")
        at = experiment
        for block in blocks:
            at = at.setdefault(block, {})
        at[last] = value
    return experiment


@pytest.fixture(autouse=True)
def _nothing_starts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "fedsim.runs.simulation.executor_for", lambda _: pytest.fail("a worker was asked for")
    )


@pytest.mark.parametrize("case", CASES)
def test_settings_of_links_that_make_no_sense_are_refused(case, tmp_path, capsys):
    changes, expected = CASES[case]
    assert call(["run", str(written(tmp_path / "exp.yaml", with_(changes)))]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert [line[:7] for line in err.splitlines()] == ["error: ", "  fix: "], err
    assert expected in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["exp.yaml"]


def test_all_of_it_together_is_sound(tmp_path):
    everything = {
        "population.shared_links": {**HOMES, "cells": {}, "regions": {"down_mbps": 500, "up_mbps": 100}},
        "network": {
            **LOSSY,
            "loss_bursts": BURSTS,
            "tls": {"version": 1.3, "early_data": True},
            "connection": "persistent",
            "backbone": "first_visit",
            "backbone_from": "cdn",
        },
    }
    path = written(tmp_path / "exp.yaml", with_(everything))
    assert call(["run", str(path), "--timeline-only"]) == 0
    assert call(["verify", str(tmp_path / "runs" / "exp")]) == 0
