"""The properties of a run and of a protocol: every protocol has them, and each notices the run that lacks it."""

import dataclasses

import pytest
from worlds.contracts import OWN_PROTOCOL

from fedsim.checks.page import protocols
from fedsim.component import build
from fedsim.testing import check_protocol, runs
from fedsim.testing.protocols import plan_of

pytestmark = pytest.mark.usefixtures("extensions")
SYNC = {"kind": "synchronous", "cohort": 4}
BUFFERED = {"kind": "buffered", "concurrency": 6, "buffer": 2}


@pytest.mark.parametrize("protocol", protocols(), ids=str)
def test_every_protocol_that_ships_keeps_the_books_right(protocol):
    check_protocol(protocol)


def test_so_does_the_protocol_of_docs_extending():
    check_protocol(build("protocols", {"kind": OWN_PROTOCOL}))


@pytest.fixture(scope="module")
def watched():
    return runs.watched(plan_of(build("protocols", SYNC), {}))


def with_table(watched, name, change):
    table = getattr(watched.run, name).copy()
    table = change(table)
    return dataclasses.replace(watched, run=dataclasses.replace(watched.run, **{name: table}))


def put(column, value, row=-1):
    """A change of one cell."""

    def change(table):
        table[column] = table[column].astype(object) if isinstance(value, str) else table[column]
        table.loc[table.index[row], column] = value
        return table

    return change


TAMPERED = [
    ("check_done", "commits", lambda table: table.iloc[:-1], "made 4 commits, its budget has 5"),
    ("check_scores", "scores", put("value", float("nan")), "not finite"),
    ("check_audit", "visits", put("joules", -1.0), "the audit fails"),
    ("check_endings", "visits", put("outcome", "vanished"), r"end as \['vanished'\]"),
    ("check_commits", "commits", put("updates", 3), "their rows say"),
    ("check_staleness", "visits", put("staleness", 7, row=0), "not the number of versions"),
    ("check_bytes", "visits", put("serialized_up_bytes", 1, row=0), "1 bytes up are counted"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("check", "table", "change", "sentence"), TAMPERED, ids=lambda v: v if isinstance(v, str) else ""
)
def test_a_cell_that_is_changed_is_told(watched, check, table, change, sentence):
    hold = getattr(runs, check)
    hold(watched)

    with pytest.raises(AssertionError, match=sentence):
        hold(with_table(watched, table, change))


def test_every_property_of_a_run_has_a_run_that_lacks_it():
    assert {name for name, *_ in TAMPERED} == {check.__name__ for check in runs.CHECKS}


def test_another_run_is_not_the_same_again(watched):
    other = with_table(watched, "visits", put("joules", 1.0)).run

    with pytest.raises(AssertionError, match="other visits when it is run again"):
        runs.check_same_again(watched, other)
    with pytest.raises(AssertionError, match=r"another schedule \(visits\)"):
        runs.check_timeline(watched, other)


@pytest.mark.parametrize(
    ("bug", "sentence"),
    [
        ("SaysFresh", "takes no stale update, and does"),
        ("SaysOne", "says that a commit takes 1 updates, one took 2"),
        ("Dice", "when it is run again"),
        ("Looks", "without training has another schedule"),
        ("Asks", "cannot run with 48 clients: asks for too many"),
    ],
)
def test_a_broken_protocol_is_told_its_property(bug, sentence):
    broken = build("protocols", {"kind": f"worlds.broken_components:{bug}"})

    with pytest.raises(AssertionError, match=sentence):
        check_protocol(broken)
