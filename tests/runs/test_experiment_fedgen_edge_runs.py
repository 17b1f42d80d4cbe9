"""The trained parts of FedGen-Edge: how plays are dealt, how a learning rate is chosen, marks that stand, what is kept, and the page."""

from __future__ import annotations

import hashlib
import math
import shutil
from pathlib import Path

import pytest
from worlds.loaded_scripts import fixture_of, loaded_script

import fedsim
from fedsim.checks.gate import read

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "experiments" / "fedgen_edge"
CLAIMS = ROOT / "docs" / "claims.md"
STATED = "6c267b45af9e42bd317e08dcc50c7c310c03066b934d09d96a147099f8ac7c06"
"""SHA-256 of marks.csv as it was committed before anything was run."""


compare = fixture_of(FOLDER / "compare.py", "compare_fedgen_edge")
measures = fixture_of(FOLDER / "measures.py", "measures_fedgen_edge")
plays = fixture_of(FOLDER / "plays.py", "plays_fedgen_edge")
# plays -------------------------------------------------------------------------------------------


def speeches(play, role, count):
    return [{"text": f"{role} {i}", "owner": f"{play}/{role}", "play": play, "turn": i} for i in range(count)]


def test_a_role_is_cut_in_time_and_every_fourth_play_is_for_tuning(plays):
    said = [s for play in "abcde" for s in (*speeches(play, "long", 20), *speeches(play, "short", 9))]
    parts = plays.dealt(said)

    assert {
        folder: {s["play"] for (f, _), part in parts.items() if f == folder for s in part}
        for folder in ("tuning", "study")
    } == {
        "tuning": {"d"},
        "study": {"a", "b", "c", "e"},
    }
    turns = {
        split: [s["turn"] for s in parts["study", split] if s["owner"] == "a/long"] for split in plays.SPLITS
    }
    assert turns == {"train": [*range(16)], "valid": [16, 17], "test": [18, 19]}
    assert [s["turn"] for s in parts["study", "train"] if s["owner"] == "a/short"] == [*range(9)]
    assert sum(map(len, parts.values())) == len(said)


def test_dealt_anew_leaves_every_role_as_many_speeches(plays):
    part = plays.anew([*speeches("a", "long", 40), *speeches("a", "short", 4)])

    assert sorted(s["anybody"] for s in part) == sorted(s["owner"] for s in part)
    assert any(s["anybody"] != s["owner"] for s in part)
    assert part == plays.anew([*speeches("a", "long", 40), *speeches("a", "short", 4)])


def test_the_folders_have_the_names_that_a_task_reads(plays, tmp_path, capsys):
    source = tmp_path / "speeches.jsonl"
    source.write_text(
        "".join(plays.json.dumps(s) + "\n" for p in "abcd" for s in speeches(p, "r", 10)), "utf-8"
    )

    assert plays.main([str(source), str(tmp_path / "plays")]) == 0
    assert sorted(p.relative_to(tmp_path / "plays").as_posix() for p in tmp_path.glob("plays/*/*")) == [
        f"{folder}/{split}.jsonl" for folder in ("study", "tuning") for split in ("test", "train", "valid")
    ]
    assert "study/train.jsonl: 24 speeches" in capsys.readouterr().out
    assert plays.main([]) == 2


# what is run -------------------------------------------------------------------------------------


def driver(compare, out="out"):
    places = compare.Places(Path(out), "builtin", "builtin", "plays")
    return compare.Driver(places, *compare.planned())


def asked(compare, way, data, changes):
    """The experiment of a way, checked as a start checks it."""
    words = compare.words(way, driver(compare).places, data, changes)
    return read(FOLDER / "base.yaml", [word for word in words if word != "-s"])


def test_every_run_and_every_search_is_an_experiment(compare):
    ways, searches = compare.planned()
    for way in (way for of_study in ways.values() for way in of_study):
        experiment = asked(compare, way, way.data, {"seed": 0, **dict.fromkeys(way.rates, 0.25)})
        assert experiment.local.lr == 0.25 or "local.lr" not in way.rates
        assert experiment.lora.full == way.whole
        assert set(way.rates.values()) <= set(searches)
    for search in searches.values():
        experiment = asked(compare, search.way, search.data, {**search.set, search.key: 0.25})
        assert "test" not in experiment.evaluate.splits or search.score != "valid"
        assert search.start in compare.LATTICE[1:-1]


def test_the_work_of_local_epochs_is_equal(compare):
    ways, _ = compare.planned()
    for way in ways["epochs"]:
        experiment = asked(compare, way, way.data, {})
        assert experiment.local.steps * experiment.budget.commits == 64
        assert experiment.budget.commits % experiment.evaluate.every_commits == 0


def test_pooled_training_sees_as_many_windows_as_the_rounds(compare):
    ways, _ = compare.planned()
    for way in ways["rounds"]:
        experiment = asked(compare, way, way.data, {})
        visits = experiment.budget.commits * experiment.protocol.cohort
        assert visits * experiment.local.steps * experiment.local.batch == 6 * 4 * 4 * 2


@pytest.mark.parametrize(("best", "tried"), [(3e-3, 3), (3e-2, 5), (1e-5, 8)])
def test_a_learning_rate_is_chosen_when_its_neighbours_are_worse(compare, monkeypatch, best, tried):
    of = driver(compare)
    seen = []

    def score(search, rate):
        seen.append(rate)
        return abs(math.log10(rate / best))

    monkeypatch.setattr(of, "tried", score)
    search = of.searches["upper"]

    assert (search.start, of.chosen(search), len(seen)) == (3e-3, best, tried)
    assert of.chosen(search) == best
    assert len(seen) == len(set(seen)) == tried


def test_a_search_that_finds_nothing_ends_the_command(compare, monkeypatch):
    of = driver(compare)
    monkeypatch.setattr(of, "tried", lambda _, rate: -rate)
    with pytest.raises(SystemExit, match="upper"):
        of.chosen(of.searches["upper"])
    monkeypatch.setattr(of, "tried", lambda *_: math.inf)
    with pytest.raises(SystemExit, match="rank-1"):
        of.chosen(of.searches["rank-1"])


def test_what_is_finished_is_left_alone_and_the_time_is_written_down(compare, tmp_path, monkeypatch):
    of, made = driver(compare, tmp_path), []

    def call(words):
        made.append(words)
        folder = Path(words[words.index("--out") + 1])
        fedsim.simulate(SMALL, out=folder, timeline_only=True, report=False)
        return 0

    monkeypatch.setattr(compare, "call", call)
    of.run(["clock"])
    ways = of.ways["clock"]
    assert len(made) == len(ways) * 5
    assert all("--timeline-only" in words for words in made)
    of.run(["clock"])
    assert len(made) == len(ways) * 5
    assert len((tmp_path / "spent.csv").read_text("utf-8").splitlines()) == len(made)


def test_the_rest_leaves_alone_what_the_tables_have(compare, tmp_path, monkeypatch):
    of, made = driver(compare, tmp_path), []
    kept, scores = tmp_path / "runs.csv", tmp_path / "rates.csv"
    kept.write_text('study,way,seed,rate\nclock,"LoRA, as trained",2,0.003\n', "utf-8")
    scores.write_text(
        "search,key,rate,perplexity,cpu_s\n"
        "upper,local.lr,0.001,60,10\nupper,local.lr,0.003,55,10\nupper,local.lr,0.01,inf,10\n",
        "utf-8",
    )
    monkeypatch.setitem(compare.MEASURES, "RUNS", kept)
    monkeypatch.setitem(compare.MEASURES["kept_scores"].__globals__, "RATES", scores)
    monkeypatch.setattr(compare, "call", lambda words: made.append(words[words.index("--out") + 1]))

    of.rest = True
    of.run(["clock"])
    assert len(made) == 4 * 5 - 1
    assert not any(folder.endswith("LoRA-as-trained/seed-2") for folder in made)
    assert (of.chosen(of.searches["upper"]), len(made)) == (0.003, 19)
    compare.MEASURES["tried"](tmp_path / "nothing", of.searches)
    assert [row.rstrip() for row in scores.read_text("utf-8").splitlines()[2:]] == [
        "upper,local.lr,0.001,60,10",
        "upper,local.lr,0.003,55,10",
        "upper,local.lr,0.01,inf,10",
    ]


def test_a_stop_ends_the_command(compare, tmp_path, monkeypatch):
    monkeypatch.setattr(compare, "call", lambda _: 130)
    with pytest.raises(SystemExit, match="130"):
        driver(compare, tmp_path).run(["clock"])


def test_a_study_that_there_is_not_is_refused(compare, tmp_path, capsys):
    assert compare.main(["run", str(tmp_path), "nothing"]) == 2
    assert "no study nothing" in capsys.readouterr().err


# what is kept ------------------------------------------------------------------------------------

SMALL = {
    "population": {"preset": "homogeneous", "clients": 6},
    "task": {"kind": "quadratic", "dimension": 8},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
    "protocol": {"kind": "synchronous", "cohort": 3},
    "budget": {"commits": 2},
    "runtime": {"executor": "inline"},
}


def test_what_is_kept_of_a_run(measures, tmp_path):
    run = fedsim.simulate(SMALL, out=tmp_path / "run", report=False)
    kept = measures.figures(run)

    assert (kept["commits"], kept["updates"], kept["able"], kept["rate"]) == (2, 6, 6, 0.1)
    assert kept["joules"] == pytest.approx(run.info.totals.joules)
    assert kept["up_bytes"] == run.info.totals.up_bytes
    assert "last" not in kept or kept["last"] > 0
    assert measures.finished(tmp_path / "run")
    assert not measures.finished(tmp_path)
    assert measures.scored(tmp_path, "valid") == math.inf


def test_the_length_of_a_move_is_that_of_clients_that_move_alike(measures):
    """Clients that move by one vector have cosine 1, and their mean move is theirs."""

    class Alike:
        experiment = {"protocol": {"cohort": 3}}  # noqa: RUF012
        commits = fedsim.simulate(SMALL).commits.assign(mean_cosine=1.0, update_norm=2.5)

    assert measures.drift(Alike()) == {"first_cosine": 1.0, "cosine": 1.0, "move": 2.5}
    Alike.commits = Alike.commits.assign(mean_cosine=0.5)
    assert measures.drift(Alike()) == {"first_cosine": 0.5, "cosine": 0.5, "move": 5.0}
    Alike.commits = Alike.commits.assign(mean_cosine=[0.25 + 0.5 * (v > 1) for v in Alike.commits["version"]])
    assert measures.drift(Alike())["first_cosine"] == 0.25
    Alike.commits = Alike.commits[Alike.commits["version"] > 1]
    assert "first_cosine" not in measures.drift(Alike())
    Alike.experiment = {"protocol": {"cohort": 4}}
    assert measures.drift(Alike()) == {}


# the page ----------------------------------------------------------------------------------------


def test_marks_stand_as_they_were_stated_and_name_what_is_run(compare):
    text = (FOLDER / "marks.csv").read_bytes()
    assert hashlib.sha256(text).hexdigest() == STATED
    ways, _ = compare.planned()
    with loaded_script(FOLDER / "tables.py", "tables_fedgen_edge") as tables:
        for mark in tables.beside("marks.csv"):
            known = {way.name for way in ways[mark["study"]]}
            assert set(mark["ways"].split(" | ")) <= known
            assert float(mark["low"]) < float(mark["high"])


def test_the_page_says_what_the_tables_of_runs_say():
    with loaded_script(FOLDER / "tables.py", "tables_fedgen_edge") as tables:
        page = tables.PAGE.read_text("utf-8")
        assert tables.written(page) == page
        for key, row in tables.runs().items():
            assert row["rate"] > 0, key


def test_a_page_of_made_up_runs_has_their_numbers(tmp_path, monkeypatch):
    folder = tmp_path / "fedgen_edge"
    shutil.copytree(
        FOLDER,
        folder,
        ignore=shutil.ignore_patterns("*.png", "runs.csv", "curves.csv", "clients.csv", "rates.csv"),
    )
    lines = ["study,way,seed,rate,first,last,cosine,own"]
    lines += [f'rounds,"LoRA, PTB iid",{seed},0.003,100,{50 + seed},,' for seed in range(3)]
    lines += [f'rounds,"full, PTB iid",{seed},0.0001,100,{100 + 2 * seed},,' for seed in range(3)]
    lines += [f"personal,fine-tune,{seed},0.003,,,,40" for seed in range(3)]
    lines += [
        f'epochs,"{e} epoch{"s"[: e > 1]}, by role",{s},0.003,100,{60 + e + s},0.{9 - e // 2},'
        for e in (1, 16)
        for s in range(3)
    ]
    (folder / "runs.csv").write_text("\n".join(lines) + "\n", "utf-8")
    (folder / "clients.csv").write_text(
        "study,way,seed,client,tier,seen,shared,own\n"
        + "".join(
            f"personal,fine-tune,{seed},{c},phone-mid,1,50,{40 + 4 * c}\n"
            for seed in range(3)
            for c in range(4)
        ),
        "utf-8",
    )
    (folder / "rates.csv").write_text(
        "search,key,rate,perplexity,cpu_s\nupper,local.lr,0.001,60,10\nupper,local.lr,0.003,55,10\nupper,local.lr,0.01,58,10\nrank-1,local.lr,0.001,60,10\n",
        "utf-8",
    )
    with loaded_script(folder / "tables.py", "tables_made_up") as tables:
        monkeypatch.setattr(tables, "CLAIMS", tmp_path / "claims.md")
        tables.CLAIMS.write_text(CLAIMS.read_text("utf-8"), "utf-8")
        tables.main()
        page = tables.PAGE.read_text("utf-8")
        assert "| LoRA, PTB iid | 3 | 0.00300 | 100 | 51 (48.5 to 53.5) |" in page
        assert "| LoRA, plays by role | not run yet |" in page
        assert "| fine-tune | 3 | 0.00300 | 40 | 8" in page
        assert "| -1.6 .. 17.6 | 25 |" in page
        assert "| 0.001: 60, **0.003: 55**, 0.01: 58 |" in page
        assert "| rank: rank 1 | `local.lr` | 0.001: 60 |" in page
        assert "| 0.3 to 0.99, off 1 | 0.500 | 3 | yes |" in page
        assert (folder / "drift.png").exists()
        assert (folder / "personal.png").exists()
        assert "![Gains of the clients, sorted](personal.png)" in page
        assert not (folder / "rounds.png").exists()
        assert "| 0.500; n = 3, all alike | **confirmed**; at equal rounds;" in tables.CLAIMS.read_text(
            "utf-8"
        )
