"""docs/extending.md: its files run as they stand, and each is all that its component needs."""

import runpy
from collections import Counter

import numpy as np
import pytest
from worlds.extensions import PAGE, files
from worlds.pairs import contribution, model

from fedsim import read
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate


@pytest.fixture(scope="module")
def runs(extensions):
    return {name: simulate(read(extensions / f"{name}.yaml")) for name in ("median", "relay", "fair")}


def test_the_page_has_these_files_and_no_other_code():
    assert list(files()) == [
        "my_rules.py", "median.yaml", "my_protocols.py", "relay.yaml", "my_samplers.py", "fair.yaml", "check.py",
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


def test_the_components_of_the_page_pass_their_contracts(extensions):
    runpy.run_path(str(extensions / "check.py"))
