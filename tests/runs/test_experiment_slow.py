"""The experiment on what slow devices get: who is dealt what, numbers by hand, marks that stand, the page, and a run at a tiny size."""

from __future__ import annotations

import csv
import math
from collections import Counter

import pytest
from worlds.loaded_scripts import fixture_of
from worlds.pages import ROOT
from worlds.studies import stated

from fedsim.checks.gate import admit

FOLDER = ROOT / "experiments" / "slow"
STATED = "81585377dc2982947857f4bd483ef9c2000568814d86d3beef122cf6526c436c"
"""SHA-256 of what the marks ask for, as they were committed before anything was run."""
TINY = [
    "task.model=builtin",
    "task.sequence=8",
    "local.steps=1",
    "budget={commits: 1}",
    "evaluate={every_commits: 1, splits: [clients], windows: 4}",
]


dealing = fixture_of(FOLDER / "dealing.py", "dealing_slow")
compare = fixture_of(FOLDER / "compare.py", "compare_slow")
rates = fixture_of(FOLDER / "rates.py", "rates_slow")
tables = fixture_of(FOLDER / "tables.py", "tables_slow")


def toy(dealing):
    """A hundred owners with ten rows each, and one whom nobody holds."""
    row = "the quick brown fox jumps over the lazy dog"
    kinds = tuple(
        {f"{kind}/{k:02}": [f"{kind} {k} {row}"] * 10 for k in range(n)}
        for kind, n in zip(dealing.KINDS["registers"], (20, 60, 20), strict=True)
    )
    return dealing.Owners(kinds, {"strangers/0": [row] * 10})


# who is dealt what -------------------------------------------------------------------------------


def test_a_fifth_is_of_those_whose_visits_take_longest_and_who_cannot_train_is_slowest(dealing):
    assert dealing.fifths([9.0, 1.0, math.inf, 3.0, 5.0]) == [2, 5, 1, 4, 3]
    assert Counter(dealing.fifths([1.0] * 100)) == dict.fromkeys(range(1, 6), 20)


def test_every_dealing_has_the_same_owners_and_speed_decides_in_two_of_them(dealing):
    found, fifth_of = toy(dealing), dealing.fifths([float(k) for k in range(100)])
    by_dealing = dealing.dealt(found, fifth_of, seed=3)

    def kinds_on(dealing, fifth):
        return Counter(
            owner.partition("/")[0]
            for owner, of in zip(by_dealing[dealing], fifth_of, strict=True)
            if of == fifth
        )

    assert {frozenset(who) for who in by_dealing.values()} == {frozenset(found.all)}
    assert kinds_on("tied", 1) == kinds_on("turned", 5) == {"news": 20}
    assert kinds_on("tied", 5) == kinds_on("turned", 1) == {"manual": 20}
    assert all(kinds_on(name, fifth) == {"plays": 20} for name in ("tied", "turned") for fifth in (2, 3, 4))
    assert len(kinds_on("drawn", 1)) == 3
    middle = [
        (a, b)
        for a, b, of in zip(by_dealing["tied"], by_dealing["turned"], fifth_of, strict=True)
        if 1 < of < 5
    ]
    assert all(a == b for a, b in middle)
    assert by_dealing["tuning"] == by_dealing["drawn"] != dealing.dealt(found, fifth_of, seed=4)["drawn"]


def test_an_owner_has_whole_rows_up_to_the_bound_and_stretches_lie_apart(dealing):
    rows = [f"{k:05}" * 40 for k in range(2000)]
    cut = dealing.stretches(rows, 20, "news")

    assert dealing.first(["a" * 6, "b" * 5, "c"], 10) == ["a" * 6]
    assert dealing.first(["a" * 60], 10) == ["a" * 60]
    assert all(sum(map(len, part)) <= dealing.CHARACTERS for part in cut.values())
    assert len({row for part in cut.values() for row in part}) == sum(map(len, cut.values()))
    with pytest.raises(SystemExit, match="20 stretches"):
        dealing.stretches(rows[:20], 20, "news")


def test_the_largest_roles_are_taken_of_the_plays_that_are_asked_for(dealing):
    roles = {"hamlet/Ham": ["x" * 90], "lear/Fool": ["y" * 50], "lear/Lear": ["z" * 70]}

    assert list(dealing.largest(roles, 2, "tragedies")) == ["tragedies/hamlet/Ham", "tragedies/lear/Lear"]
    assert list(dealing.largest(roles, 1, "tragedies", "lear")) == ["tragedies/lear/Lear"]
    with pytest.raises(SystemExit, match="3 roles are needed, there are 2"):
        dealing.largest(roles, 3, "tragedies", "lear")


def test_the_files_of_a_seed_hold_every_owner_and_tuning_lacks_what_is_scored(dealing, tmp_path, monkeypatch):
    monkeypatch.setattr(dealing, "visit_seconds", lambda _seed: [float(k) for k in range(100)])
    dealing.write_seed(tmp_path, toy(dealing), 0)

    sizes = {
        name: len((tmp_path / name / "train.jsonl").read_text("utf-8").splitlines())
        for name in dealing.DEALINGS
    }
    assert sizes == {"tied": 1000, "turned": 1000, "drawn": 1000, "tuning": 700}
    with (tmp_path / "clients.csv").open(encoding="utf-8") as file:
        clients = list(csv.DictReader(file))
    assert [row["fifth"] for row in clients[::20]] == ["5", "4", "3", "2", "1"]
    assert clients[99]["tied"].startswith("news/")


# runs --------------------------------------------------------------------------------------------


def test_every_way_is_admitted(compare, tmp_path):
    for way in compare.ways().values():
        assert set(way.dealings) <= {"tied", "turned", "drawn"}
        for dealing in way.dealings:
            data = tmp_path / way.texts / "seed-1" / dealing
            data.mkdir(parents=True, exist_ok=True)
            asked = compare.experiment(way, dealing, 1, tmp_path, ["task.model=builtin"])
            assert (asked.seed, asked.task.data) == (1, str(data))
            admit(asked)


def test_what_is_named_is_run_wherever_the_settings_stand(compare, tmp_path, monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(compare, "run", lambda *parts: asked.append(parts))
    folders = [str(tmp_path / name) for name in ("runs", "texts")]

    assert (
        compare.main(
            ["run", *folders, "-s", "a=1", "tifl", "--seeds", "3", "-s", "b=2", "--dealings", "tied"]
        )
        == 0
    )
    _, _, ways, seeds, changes = asked[0]
    assert [(way.name, way.dealings) for way in ways] == [("tifl", ("tied",))]
    assert (seeds, changes) == ([3], ["a=1", "b=2"])
    for wrong in (["deadlne"], ["--dealings", "tied", "deadline"]):
        with pytest.raises(SystemExit):
            compare.main(["run", *folders, *wrong])
        assert wrong[-1] in capsys.readouterr().err


def test_ways_that_are_compared_differ_by_what_they_say(compare, tmp_path):
    known = compare.ways()

    def differs(first, second):
        one, other = (compare.experiment(known[name], "tied", 0, tmp_path) for name in (first, second))
        return {name for name, value in one if value != getattr(other, name)} - {"name"}

    assert differs("deadline", "depth") == {"lora"}
    assert differs("fedbuff", "fedbuff, averaged") == {"evaluate", "personal"}
    assert differs("alone", "together") == {"population"}
    assert differs("fedbuff", "fedbuff, no discount") == {"aggregator", "personal"}


def test_rates_of_the_files_are_the_best_of_what_was_tried(compare, rates, tables, tmp_path):
    tried = tables.lines_of(tables.RATES.read_text("utf-8"))
    for name in (*compare.SERVERS, rates.LOCAL_EPOCH):
        found = {float(row["lr"]): float(row["loss"]) for row in tried if row["server"] == name}
        best = min(found, key=lambda rate: found[rate])
        assert min(found) < best < max(found)
        asked = compare.experiment(
            compare.ways()[rates.EPOCH_OF if name == rates.LOCAL_EPOCH else name], "tied", 0, tmp_path
        )
        assert best == (asked.personal.lr if name == rates.LOCAL_EPOCH else asked.local.lr)


def test_a_grid_goes_on_by_threes(rates):
    assert [
        f"{rates.further(rate, up=up):g}" for rate, up in ((0.003, False), (0.01, True), (0.03, True))
    ] == [
        "0.001",
        "0.03",
        "0.1",
    ]


@pytest.mark.slow
def test_a_tiny_size_of_the_real_thing_runs(dealing, compare, tmp_path):
    texts, runs = tmp_path / "texts", tmp_path / "runs"
    dealing.write_seed(texts / "registers" / "seed-0", toy(dealing), 0)
    way = compare.ways()["fedbuff"]
    compare.run(runs, texts, [way], [0], TINY)
    kept = dict(compare.of_way(runs, texts, way))

    assert set(kept) == {("fedbuff", name, 0) for name in ("tied", "turned", "drawn")}
    tied = kept["fedbuff", "tied", 0]
    assert sum(tied[f"updates_{fifth}"] for fifth in range(1, 6)) == 10
    assert math.isfinite(tied["excess_1"])


# numbers -----------------------------------------------------------------------------------------


def run_of(first, last, **others):
    """What is kept of a run: losses of both outer kinds; own ones are half as high, the middle is 1."""
    kept = {"loss_first": first, "loss_last": last, "own_first": first / 2, "own_last": last / 2, "loss": 1.0}
    by_fifth = {
        f"{name}_{k}": value
        for k in range(1, 6)
        for name, value in (("updates", k), ("joules", 1), ("loss", 1.0))
    }
    return kept | by_fifth | others


def test_a_gap_is_of_the_same_text_on_slow_and_on_fast_devices(tables):
    rows = {("w", "tied", 0): run_of(3.0, 2.0), ("w", "turned", 0): run_of(2.8, 2.4)}
    found = tables.derived(rows)["slow", "w", 0]

    assert found["gap"] == pytest.approx(100 * math.expm1((0.2 + 0.4) / 2))
    assert found["own_gap"] == pytest.approx(100 * math.expm1(0.15))
    assert found["slow"] == pytest.approx(math.exp((3.0 + 2.4) / 2))
    assert found["fast"] == pytest.approx(math.exp((2.8 + 2.0) / 2))
    assert (found["updates_1"], found["joules_1"]) == pytest.approx((100 / 15, 20.0))
    assert math.isnan(found["lot"])


def test_what_was_bought_is_shared_out_by_what_each_fifth_gained(tables):
    before = {f"loss_{k}": 2.0 for k in range(1, 6)}
    after = {f"loss_{k}": 2.0 - k / 10 for k in range(1, 6)}

    assert tables.bought(after, before) == pytest.approx([100 * k / 15 for k in range(1, 6)])


def test_excess_is_over_the_same_owners(compare):
    held = [compare.Held(k, f"news/{k}", 1 + k // 2, "first") for k in range(10)]
    mine, lot = {f"news/{k}": float(k) for k in range(10)}, {f"news/{k}": k - 0.5 for k in range(10)}

    assert compare.excess(mine, lot, held) == {f"excess_{fifth}": 0.5 for fifth in range(1, 6)}


# the page ----------------------------------------------------------------------------------------


def marks_of(tables):
    return tables.lines_of(tables.MARKS.read_text("utf-8"))


def test_marks_stand_as_they_were_stated(tables):
    assert stated(marks_of(tables)) == STATED


def test_every_mark_is_of_ways_that_there_are(compare, tables):
    known = compare.ways()
    for row in marks_of(tables):
        for way in f"{row['ways']} | {row['control_ways']}".split(" | "):
            assert way in known or way.rpartition(", ")[0] in known


def test_the_page_says_what_the_runs_say(tables):
    page = tables.PAGE.read_text("utf-8")
    assert tables.filled(page) == page
