"""docs/extending.md: its files run as they stand, and each is all that its component needs."""

import runpy
from collections import Counter

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from worlds.extensions import PAGE, files, installed, plain
from worlds.pairs import contribution, model

import fedsim
from fedsim import read
from fedsim.component import Component
from fedsim.errors import ExperimentError
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate
from fedsim.seams import required


@pytest.fixture(scope="module")
def runs(extensions):
    return {name: simulate(read(extensions / f"{name}.yaml")) for name in ("median", "relay", "fair")}


def test_the_page_has_these_files_and_no_other_code():
    assert list(files()) == [
        "my_rules.py", "median.yaml", "my_protocols.py", "relay.yaml", "my_samplers.py", "fair.yaml", "my_task.py", "my_task.yaml",
        "check.py",
    ]  # fmt: skip
    assert PAGE.read_text(encoding="utf-8").count("```") == 2 * len(files())


def test_every_example_runs_and_passes_the_audit(runs):
    for run in runs.values():
        assert len(run.commits) == 10
        assert verify(run) == []


def test_the_rule_took_medians(extensions, runs):
    from my_rules import Median

    rule = read(extensions / "median.yaml").aggregator
    assert isinstance(rule, Median)
    assert (rule.kind, rule.server_lr) == ("my_rules:Median", 0.8)
    losses = runs["median"].scores.value.to_numpy()
    assert losses[-1] < 0.5 * losses[0]


def test_one_half_of_liars_does_not_move_the_median(extensions):
    from my_rules import Median

    honest = [contribution([0, 0], [1, 2], client=c) for c in range(3)]
    liars = [contribution([0, 0], [1e6, -1e6], client=3 + c) for c in range(2)]
    after, _ = Median(kind="my_rules:Median").apply(None, model([0, 0]), [*honest, *liars])

    assert after.adapter.vector.tolist() == [1.0, 2.0]


def test_the_relay_asks_one_at_a_time(runs):
    visits = runs["relay"].visits.sort_values("order")

    assert runs["relay"].commits.updates.tolist() == [1] * 10
    assert (visits.dispatched_s.to_numpy()[1:] >= visits.ended_s.to_numpy()[:-1]).all()


def test_the_fair_sampler_asks_everybody_before_anybody_twice(runs):
    asked = runs["fair"].visits.sort_values("order").client.tolist()
    counts = Counter(asked)

    assert len(set(asked[:20])) == 20
    assert max(counts.values()) - min(counts.get(c, 0) for c in range(20)) <= 2
    assert np.unique(asked).size == 20


def test_the_image_classifier_learns_as_a_whole_and_passes_the_audit(extensions):
    run = simulate(read(extensions / "my_task.yaml"))
    accuracy = run.scores[run.scores.metric == "accuracy"].value.to_numpy()

    assert verify(run) == []
    assert (accuracy[0], accuracy[-1] > 0.5) == (pytest.approx(0.1, abs=0.1), True)
    assert len(files()["my_task.py"].splitlines()) <= 40


def test_the_components_of_the_page_pass_their_contracts(extensions):
    runpy.run_path(str(extensions / "check.py"))


def test_classes_that_derive_from_component_alone_make_the_same_runs(runs, tmp_path):
    with installed(tmp_path, plain):
        from my_rules import Median

        assert Median.__mro__[1] is Component
        for name, run in runs.items():
            again = simulate(read(tmp_path / f"{name}.yaml"))
            for table in ("visits", "commits", "scores"):
                assert_frame_equal(getattr(again, table), getattr(run, table))


def without_the_model(text):
    """The rule of the page whose `apply` forgets the model."""
    return text.replace(
        "self, state: None, model: ServerModel, contributions", "self, state: None, contributions"
    )


@pytest.mark.parametrize("form", [without_the_model, lambda text: without_the_model(plain(text))])
def test_the_page_shows_the_sentence_that_a_wrong_signature_gives(tmp_path, form):
    with installed(tmp_path, form), pytest.raises(ExperimentError) as refusal:
        read(tmp_path / "median.yaml")

    shown = str(refusal.value).replace(f"{tmp_path}/", "")
    assert f"    error: {shown.splitlines()[0]}\n    {shown.splitlines()[1]}\n" in PAGE.read_text(
        encoding="utf-8"
    )


def test_the_page_says_of_every_seam_what_it_must_define_and_which_file_to_copy():
    rows = [
        line.split("|") for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| `")
    ]

    for _, _, base, defines, copied, _ in rows:
        seam = getattr(fedsim, base.split("`")[1].rpartition(".")[2])
        assert all(f"`{method}`" in defines for method in required(seam))
        assert (PAGE.parents[1] / copied.strip(" `")).is_file()
    assert len(rows) == 6
