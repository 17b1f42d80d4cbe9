"""The auditor's bounds on transfers: each alone on its own link, and all of a stretch on the server's."""

from __future__ import annotations

import dataclasses

import pytest
from worlds.handmade_run import by_hand

from fedsim.records.verify import verify


def run_with(**network):
    """By hand: downloads of 1,000 bytes from 0 s on, done at 1, 2 and 1 s; then 6-7, 10-12.5, 12-13, 45-45.5 s."""
    run = by_hand()
    return dataclasses.replace(run, experiment=run.experiment | {"network": network})


def with_visit(run, row, **values):
    visits = run.visits.copy()
    visits.loc[row, list(values)] = list(values.values())
    return dataclasses.replace(run, visits=visits)


def test_links_that_have_the_time_they_need_are_fine():
    assert verify(run_with(sharing="max-min", server_up_mbps=0.012, server_down_mbps=0.01)) == []


@pytest.mark.parametrize(
    ("row", "values", "sentence"),
    [
        (0, {"downloaded_s": 0.006}, "visit 0 of client 0 moved 1000 bytes down in 0.006 s, and its link needs 0.007 s"),
        (1, {"trained_s": 9.994}, "visit 0 of client 1 moved 1000 bytes up in 0.006 s, and its link needs 0.007 s"),
    ],
)  # fmt: skip
def test_no_transfer_is_faster_than_bytes_over_rate_and_one_and_a_half_round_trips(row, values, sentence):
    assert sentence in verify(with_visit(run_with(), row, **values))


def test_without_tcp_bytes_over_rate_are_enough():
    quick = with_visit(run_with(model="size-over-rate"), 0, downloaded_s=0.003)
    assert verify(quick) == []
    assert len(verify(with_visit(quick, 0, downloaded_s=0.0009))) == 1


def test_the_server_s_rate_bounds_each_transfer_too():
    [problem] = verify(run_with(server_down_mbps=0.00796))
    assert problem.startswith("visit 0 of client 0 moved 1000 bytes up in 1 s, and its link needs 1.01")


def test_rates_that_change_bound_nothing():
    quick = with_visit(run_with(), 0, downloaded_s=0.001)
    varying = quick.experiment | {"population": {"rates": "generated"}}
    assert verify(dataclasses.replace(quick, experiment=varying)) == []


def test_a_stretch_of_transfers_moves_no_more_than_the_server_s_link_lets_through():
    """3,000 bytes went down from 0 to 2 s; at 0.0112 Mbit/s that is 1,400 bytes a second."""
    [problem] = verify(run_with(sharing="max-min", server_up_mbps=0.0112))
    assert problem == (
        "visit 0 of client 0 is in a stretch from 0 s to 2 s in which 3000 bytes went down, "
        "and the server's link lets 2800 through (and 2 more)"
    )
    assert verify(run_with(sharing="private", server_up_mbps=0.0112)) == []
