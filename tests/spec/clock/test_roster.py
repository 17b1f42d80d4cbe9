"""The roster: who is idle and online, and who will never be asked again."""

from __future__ import annotations

import numpy as np
from worlds import windows

from fedsim.clock.online.roster import Roster
from fedsim.devices.availability import Availability


def idle(roster, now_s=0.0):
    return roster.idle(now_s).tolist()


def test_everybody_who_is_online_is_idle_at_first():
    assert idle(Roster(Availability.always(3))) == [0, 1, 2]


def test_a_client_is_busy_from_when_it_is_reserved_until_it_is_released():
    roster = Roster(Availability.always(4))
    roster.reserve(np.array([1, 3]))

    assert (idle(roster), roster.busy) == ([0, 2], 2)
    roster.release(3)
    assert (idle(roster), roster.busy) == ([0, 2, 3], 1)


def test_only_those_whose_window_is_open_are_idle():
    roster = Roster(windows([[(0.0, 5.0)], [(3.0, 9.0)], [(7.0, 8.0)]]))

    assert [idle(roster, now_s) for now_s in (0.0, 3.0, 5.0, 7.0, 9.0)] == [[0], [0, 1], [1], [1, 2], []]


def test_who_is_too_small_is_never_asked_again_whatever_becomes_of_its_visit():
    roster = Roster(Availability.always(3))
    roster.reserve(np.array([1]))
    roster.exclude(1)
    roster.release(1)

    assert (idle(roster), roster.busy, roster.excluded) == ([0, 2], 0, 1)


def test_the_able_are_counted_among_all_or_some_busy_ones_too():
    roster = Roster(windows([[(0.0, 1.0)]] * 4))
    roster.reserve(np.array([0]))
    roster.exclude(2)

    assert roster.able() == 3
    assert roster.able(np.array([1, 2])) == 1
    assert roster.able(np.array([2])) == 0
