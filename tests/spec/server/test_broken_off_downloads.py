"""Downloads that are broken off: what a client keeps of them, byte by byte, and that it is equipped in the end."""

from __future__ import annotations

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from worlds import plan, simulated
from worlds.cases import tried

from fedsim.adapters.payload import NOTHING, WHOLE
from fedsim.cost.shape import backbone_bytes
from fedsim.errors import FedsimError
from fedsim.runs.simulation import simulate
from fedsim.server.clients import ClientBook

ROUNDS = {"kind": "synchronous", "cohort": 1}
BUFFERED = {"kind": "buffered", "concurrency": 3, "buffer": 1}
RATE = 1.0


def network(interrupted, **more):
    return {
        "server_up_mbps": 1e12,
        "server_down_mbps": 1e12,
        "detect_after_s": 1.0,
        "backbone": "first_visit",
        "interrupted": interrupted,
    } | more


def phases(n=1):
    """The bytes of a backbone and of a message of these worlds."""
    made = plan(ROUNDS, [1.0] * n, rate=RATE)
    return backbone_bytes(made.shape), made.work(0).down_bytes


# the book ---------------------------------------------------------------------------------------------


def test_the_frozen_model_comes_first_then_the_message():
    book = ClientBook(1, backbone_bytes=100, resumes=True)
    assert book.down_bytes(0, 3, WHOLE, 10) == 110
    book.note_broken_off(0, 3, WHOLE, 60)
    assert book.down_bytes(0, 3, WHOLE, 10) == 50
    book.note_broken_off(0, 3, WHOLE, 44)
    assert book.down_bytes(0, 3, WHOLE, 10) == 6
    assert (
        book.down_bytes(0, 4, WHOLE, 10) == 10
    )  # another version: the frozen model is whole, the message is not
    assert book.down_bytes(0, 3, NOTHING, 0) == 0
    book.note_broken_off(0, 4, WHOLE, 7)
    assert [book.down_bytes(0, version, WHOLE, 10) for version in (3, 4)] == [10, 3]
    book.note_download(0, 4, 8)
    assert book.down_bytes(0, 4, WHOLE, 10) == 10


def test_a_client_that_is_getting_on_is_not_given_up():
    """Five failures in a row end it; a download that has brought something is none where it is kept."""
    given_up = {}
    for resumes in (False, True):
        book = ClientBook(2, backbone_bytes=100, resumes=resumes)
        for _ in range(9):
            book.note_failed_download(0, 10, lambda _: True)
        for moved_bytes in (0, 0, 0, 0, 10, 0, 0, 0, 0):
            book.note_failed_download(1, moved_bytes, lambda _: True)
        given_up[resumes] = set(book.never_equipped)
    assert given_up == {False: {0, 1}, True: set()}


def test_who_restarts_keeps_nothing():
    book = ClientBook(1, backbone_bytes=100)
    book.note_broken_off(0, 3, WHOLE, 60)
    assert book.down_bytes(0, 3, WHOLE, 10) == 110


@given(st.integers(0, 1000), st.integers(1, 50), st.lists(st.tuples(st.integers(0, 2), st.integers(1, 90))))
def test_what_is_left_falls_by_what_was_moved_and_a_new_version_costs_its_message_alone(
    backbone, message, attempts
):
    """A second account: bytes of the frozen model only ever arrive once, those of a message once a version."""
    book = ClientBook(1, backbone_bytes=backbone, resumes=True)
    frozen, of_version, known = backbone, message, 0
    for version, most in attempts:
        if version != known:
            known, of_version = version, message
        left = book.down_bytes(0, version, WHOLE, message)
        assert left == frozen + of_version
        moved = min(most, max(0, left - 1))
        book.note_broken_off(0, version, WHOLE, moved)
        frozen, of_version = frozen - min(moved, frozen), of_version - max(0, moved - frozen)


# runs -------------------------------------------------------------------------------------------------


def test_a_client_whose_windows_are_too_short_is_equipped_in_pieces():
    """Windows of a third of the download, then a long one: who restarts has thrown away all that came before it."""
    backbone, message = phases()
    whole_s = (backbone + message) / RATE
    short = [(k * whole_s, k * whole_s + whole_s / 3) for k in range(4)]
    visits = {
        interrupted: simulated(
            ROUNDS, [1e-3], online=[[*short, (20 * whole_s, 1e6)]], rate=RATE, network=network(interrupted),
            budget={"commits": 1},
        ).visits.sort_values("order")
        for interrupted in ("restart", "resume")
    }  # fmt: skip
    equipped = {}
    for interrupted, of_run in visits.items():
        first = of_run[of_run.downloaded_s.notna()].iloc[0]
        equipped[interrupted] = of_run[of_run.order <= first.order]
    assert equipped["restart"].dispatched_s.iloc[-1] == 20 * whole_s
    assert equipped["restart"].down_bytes.iloc[-1] == backbone + message
    assert len(equipped["resume"]) in (3, 4)
    assert equipped["resume"].down_bytes.sum() == backbone + message
    assert all(of_run.outcome.iloc[-1] == "landed" for of_run in visits.values())


@settings(deadline=None, max_examples=tried(25), phases=(Phase.explicit, Phase.reuse, Phase.generate))
@given(
    lengths=st.lists(st.floats(0.05, 0.9), min_size=3, max_size=6),
    sharing=st.sampled_from(["private", "max-min"]),
    server=st.sampled_from([1e12, 12e-6]),
)
def test_no_byte_of_the_frozen_model_is_sent_twice(lengths, sharing, server):
    """Until a client has it whole, what it was sent is the frozen model once and its messages, however it is cut."""
    backbone, message = phases()
    whole_s = (backbone + message) / RATE
    last = (61 * whole_s, 1e6)
    online = [
        [*((k * whole_s + 0.01 * c, (k + lengths[c % len(lengths)]) * whole_s) for k in range(60)), last]
        for c in range(3)
    ]
    run = simulated(
        BUFFERED, [1e-3] * 3, online=online, rate=RATE, budget={"time_s": 55 * whole_s},
        network=network("resume", sharing=sharing, server_up_mbps=server),
    )  # fmt: skip
    for client in range(3):
        visits = run.visits[run.visits.client == client].sort_values("order")
        done = visits[visits.downloaded_s.notna()]
        if done.empty:
            continue
        until_then = visits[visits.order <= done.order.iloc[0]]
        versions = until_then.version.nunique()
        total = int(until_then.down_bytes.sum())
        assert backbone + message <= total <= backbone + versions * message
        assert (until_then.down_bytes >= 0).all()
        later = done[done.order > done.order.iloc[0]]
        assert (later.down_bytes <= message).all()


def test_a_message_is_resumed_only_within_its_version():
    """Nothing is frozen to download: client 0 is cut in its first download and asked again for the same version."""
    _, message = phases()
    cut_s = 0.4 * message / RATE
    online = [[(0.0, cut_s), (1000.0, 1e6)]]
    asked = network("resume", backbone="preinstalled")
    run = simulated(ROUNDS, [1.0], online=online, rate=RATE, network=asked, budget={"commits": 2})
    first, second, third = run.visits.sort_values("order").itertuples()
    assert (first.version, second.version, third.version) == (0, 0, 1)
    assert first.outcome == "offline"
    assert first.down_bytes + second.down_bytes == message
    assert third.down_bytes == message
    assert second.downloaded_s - second.dispatched_s == pytest.approx(second.down_bytes / RATE)


def test_both_ways_the_same_timeline_comes_twice_and_trained_runs_agree():
    backbone, message = phases(3)
    whole_s = (backbone + message) / RATE
    online = [
        [*((k * whole_s, (k + 0.55) * whole_s) for k in range(30)), (31 * whole_s, 1e6)] for _ in range(3)
    ]
    asked = {"online": online, "rate": RATE, "network": network("resume"), "budget": {"time_s": 12 * whole_s}}
    made = [plan(BUFFERED, [1e-3] * 3, **asked) for _ in range(2)]
    timeline, trained = (simulate(m, timeline_only=only) for m, only in zip(made, (True, False), strict=True))
    columns = ["client", "version", "dispatched_s", "landed_s", "down_bytes", "up_bytes", "outcome"]
    assert timeline.visits[columns].equals(trained.visits[columns])


def test_windows_that_hold_no_whole_visit_are_not_refused_where_downloads_go_on():
    """20 s and 50 s for 32 s down and 32 s up: nobody would land who restarts; who resumes has 12 s left to download."""
    _, message = phases()
    online = [[(0.0, 20.0), (1000.0, 1050.0)]]
    kept = {"backbone": "preinstalled", "detect_after_s": 0.0}
    asked = {"online": online, "rate": RATE, "budget": {"commits": 1}}
    with pytest.raises(FedsimError):  # before the start or when the windows are over: nobody can land
        simulate(plan(ROUNDS, [1e-3], network=network("restart", **kept), **asked), timeline_only=True)
    run = simulate(plan(ROUNDS, [1e-3], network=network("resume", **kept), **asked), timeline_only=True)
    assert run.visits.outcome.tolist() == ["offline", "landed"]
    assert run.visits.down_bytes.tolist() == [20, message - 20]
