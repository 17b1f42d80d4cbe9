"""What a visit uses: joules by hand, and the account of visits that land, stop half-way or never begin."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import simpy
from worlds import device, windows

from fedsim.clock.device_training import Machines
from fedsim.clock.estimate import estimate
from fedsim.clock.online.attendance import Windowed
from fedsim.clock.usage import Usage, active_j, tails_j
from fedsim.clock.visit import Visit
from fedsim.clock.visit_order import DeviceWorld, VisitOrder
from fedsim.config.devices import ComputeConfig
from fedsim.cost.work import Work

RADIO = replace(
    device(0, flops_per_s=100.0, rate=50.0, idle_w=0.5, train_w=2.5, memory=10.0),
    down_radio_w=1.0,
    up_radio_w=2.0,
    down_radio_j_per_byte=0.01,
    up_radio_j_per_byte=0.02,
    tail_s=4.0,
    tail_w=0.25,
)
"""200 bytes down take 4 s, 1,000 operations 10 s, 100 bytes up 2 s."""
WORK = Work(
    200, 100, 1000.0, memory_bytes=1.0, tokens=7, serialized_down_bytes=200, serialized_up_bytes=100, steps=1
)
DOWN_J, TRAIN_J, UP_J = 4.0 + 2.0, 20.0, 4.0 + 2.0


class Carriage:
    """A transfer at 50 bytes a second."""

    def __init__(self, env, n_bytes):
        self.env, self.n_bytes, self.began_s, self.ended_s = env, n_bytes, env.now, math.inf
        self.due_s = env.now + n_bytes / 50
        self.done = env.timeout(n_bytes / 50)

    def sent_bytes(self, at_s=None):
        until_s = min(self.ended_s, self.env.now if at_s is None else at_s)
        return min(self.n_bytes, math.floor(50 * (until_s - self.began_s)))

    def cancel(self):
        self.ended_s = min(self.ended_s, self.env.now)
        return self.sent_bytes()


class Carrier:
    """A network on which everybody has 50 bytes a second."""

    def __init__(self, env):
        self.env = env

    def transfer(self, direction, client, n_bytes):
        return Carriage(self.env, n_bytes)

    def online_until(self, client, offline):
        """Nobody keeps a connection."""


class Clients:
    def __init__(self, online):
        self.availability = windows([online])


def visit(work=WORK, *, online=((0.0, 1e9),), tail=False, profile=RADIO, **rest):
    """A visit of client 0 that begins at 0, and its clock."""
    env = simpy.Environment()
    attendance = Windowed(env, Clients(online))
    machines = Machines(ComputeConfig(), seed=0)
    world = DeviceWorld(env, Carrier(env), machines, attendance, tail=tail, detect_after_s=30.0)
    order = VisitOrder(
        profile, order=8, visit=2, version=5, round=3, start=np.zeros(1, np.float32), work=work, steps=4
    )
    return Visit(world, order, on_end=lambda _: None, **rest), env


# joules by hand -------------------------------------------------------------------------------------


def test_a_visit_draws_for_its_download_its_training_and_its_upload():
    joules = active_j(RADIO, down_s=4.0, down_bytes=200, train_j=TRAIN_J, up_s=2.0, up_bytes=100)

    assert joules == DOWN_J + TRAIN_J + UP_J


@pytest.mark.parametrize(
    ("upload_after_s", "joules"), [(None, 1.0), (10.0, 2.0), (4.0, 2.0), (1.0, 1.25), (0.0, 1.0)]
)
def test_a_radio_stays_up_after_the_download_until_the_upload_at_most_and_after_it(upload_after_s, joules):
    assert tails_j(RADIO, upload_after_s) == joules


@pytest.mark.parametrize(("upload_after_s", "joules"), [(None, 0.0), (1.0, 1.0)])
def test_a_transfer_without_bytes_wakes_no_radio(upload_after_s, joules):
    assert tails_j(RADIO, upload_after_s, downloads=False) == joules


@pytest.mark.parametrize(
    ("down_bytes", "up_bytes", "tails"), [(0, 0, 0.0), (0, 100, 1.0), (200, 0, 1.0), (200, 100, 2.0)]
)
def test_a_visit_has_the_tails_of_what_it_moves(down_bytes, up_bytes, tails):
    work = replace(WORK, down_bytes=down_bytes, up_bytes=up_bytes)
    joules = []
    for tail in (True, False):
        landed, env = visit(work, tail=tail)
        env.run(landed.process)
        joules.append(landed.usage.joules)

    assert joules[0] - joules[1] == pytest.approx(tails)


# of visits ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tail", [False, True])
def test_a_visit_that_lands_has_used_what_was_estimated(tail):
    landed, env = visit(tail=tail)
    env.run(landed.process)
    joules = DOWN_J + TRAIN_J + UP_J + (2.0 if tail else 0.0)

    assert (landed.outcome, landed.landed_s) == ("landed", 16.0)
    assert landed.usage == Usage(200, 100, 1000.0, joules, joules + 0.5 * 16)
    expected = estimate(replace(RADIO, rtt_s=0.0), WORK, 0.0, tail=tail)
    assert (expected.joules, expected.gross_joules) == pytest.approx((joules, joules + 8.0), rel=1e-3)


def test_a_visit_has_no_usage_before_it_has_ended():
    flying, env = visit()
    env.run(until=5.0)

    with pytest.raises(AssertionError, match="when it has ended"):
        _ = flying.usage


@pytest.mark.parametrize(
    ("at_s", "usage"),
    [
        (1.0, Usage(50, 0, 0.0, 1.5, 2.0)),
        (9.0, Usage(200, 0, 500.0, DOWN_J + 10.0, DOWN_J + 10.0 + 4.5)),
        (15.0, Usage(200, 50, 1000.0, DOWN_J + TRAIN_J + 3.0, DOWN_J + TRAIN_J + 3.0 + 7.5)),
    ],
)
@pytest.mark.parametrize("how", ["stopped", "offline", "the run ends"])
def test_a_visit_that_ends_on_the_way_is_charged_for_what_it_had_done(how, at_s, usage):
    online = ((0.0, at_s),) if how == "offline" else ((0.0, 1e9),)
    ended, env = visit(online=online)
    env.run(until=at_s)
    if how == "stopped":
        ended.stop("late")
    elif how == "the run ends":
        ended.close(at_s)
    env.run(until=at_s + 0.5)

    outcome = {"stopped": "late", "offline": "offline", "the run ends": "in_flight"}[how]
    assert (ended.outcome, ended.ended_s, ended.usage) == (outcome, at_s, usage)


def test_the_server_knows_that_a_visit_is_lost_after_a_while_and_that_it_was_stopped_at_once():
    lost, env = visit(online=((0.0, 9.0),))
    env.run(lost.process)
    assert (lost.away, lost.ended_s, env.now) == ("window", 9.0, 39.0)

    stopped, env = visit()
    env.run(until=9.0)
    stopped.stop("surplus")
    env.run(stopped.process)
    assert (stopped.outcome, stopped.away, env.now) == ("surplus", "", 9.0)


def test_a_device_without_the_memory_has_paid_for_the_download():
    refused, env = visit(replace(WORK, memory_bytes=11.0))
    env.run(refused.process)

    assert (refused.outcome, refused.ended_s) == ("memory", 4.001)
    assert (refused.usage.down_bytes, refused.usage.up_bytes, refused.usage.flops) == (200, 0, 0.0)


def test_a_visit_that_is_ignored_goes_on_to_its_end_and_counts_as_told():
    vain, env = visit()
    env.run(until=1.0)
    vain.ignore("surplus")
    env.run(vain.process)

    assert (vain.outcome, vain.ended_s, vain.usage.up_bytes) == ("surplus", 16.0, 100)


# what becomes of its update -------------------------------------------------------------------------


def test_a_committed_visit_knows_its_version_and_how_stale_it_was():
    landed, _ = visit()
    assert (landed.committed_version, landed.staleness) == (-1, -1)

    landed.commit(6)
    assert (landed.committed_version, landed.staleness) == (6, 0)
    landed.commit(9)
    assert (landed.committed_version, landed.staleness) == (9, 3)


def test_a_visit_is_refused_or_fails_whatever_it_was_before():
    landed, env = visit()
    env.run(landed.process)
    landed.refuse("rejected")
    assert landed.outcome == "rejected"
    landed.fail()
    assert landed.outcome == "failed"
    assert landed.usage.up_bytes == 100
