"""A run that was interrupted and goes on leaves the same bytes as one that never ended, of every kind."""

import pytest
from worlds.resumed_runs import KINDS, contents, experiment_of, gone_through, resumed, started

QUICK = (*("sync", "fedat", "tifl", "oort", "ditto", "fedex-coded", "flora", "hetlora", "partial"),)
"""One of each kind of state (Adam's is that of `spec/runs/test_resuming.py`); `-m slow` tries the others."""


@pytest.mark.parametrize(
    "kind", [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS]
)
def test_what_goes_on_ends_like_what_never_stopped(kind, tmp_path):
    experiment = experiment_of(kind)
    started(experiment, tmp_path / "whole")
    whole = contents(tmp_path / "whole")
    assert started(experiment, tmp_path / "cut", stop=6) is None

    assert resumed(tmp_path / "cut", stop=8) is None
    run = resumed(tmp_path / "cut")

    assert [again.version for again in run.info.resumed] == [4, 6]
    assert {name: data == whole[name] for name, data in contents(tmp_path / "cut").items()} == dict.fromkeys(
        whole, True
    )
    assert not [facts for event, facts in gone_through.events if event == "no_checkpoint"]
