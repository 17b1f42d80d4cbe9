"""The stack of a device decides what training holds there: in the plan, at dispatch, in ranks by memory and in the tables."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from worlds import experiment

import hetero_profiles
from fedsim.checks.blocks import misfits
from fedsim.clock.plan import prepare
from fedsim.config.devices import ComputeConfig
from fedsim.cost.formulas import train_memory_bytes
from fedsim.cost.memory.model import PLAIN
from fedsim.devices.population import draw_devices, with_software
from fedsim.devices.stacks.memory_models import memory_models
from fedsim.records.verify import verify
from fedsim.runs.simulation import simulate

SYNC = {"kind": "synchronous", "cohort": 20}
CHARGE = {"preset": "gemma-3-270m", "sequence": 128, "weight_bytes": 0.5, "tokens_per_visit": 2000}


def asked(stack=None, charge=CHARGE, task=None, **blocks):
    return experiment(
        SYNC,
        100,
        population={"preset": "mixed_edge_2026", "clients": 100, "wifi_only": True},
        compute={"stack": stack},
        task={"kind": "quadratic", "charge_as": charge} | (task or {}),
        budget={"commits": 3},
        **blocks,
    )


def test_each_client_needs_what_its_program_keeps():
    plan = prepare(asked())
    models = memory_models()
    for client in range(100):
        stack = str(plan.population.laws.stack[client])
        wanted = train_memory_bytes(plan.shape, plan.population.memory_model(client))
        assert plan.training_plan(client).memory.memory_bytes == wanted == plan.work(client).memory_bytes
        if stack == "cpp":
            assert plan.population.memory_model(client) == models["cpp"]
    needs = {plan.work(client).memory_bytes for client in range(100)}
    assert len(needs) > 3


def test_another_program_on_the_same_phones_trains_where_one_is_refused():
    plain, mapped = (simulate(asked({"ios": stack}), timeline_only=True) for stack in ("auto", "mesp"))
    iphone = plain.clients["device"].str.startswith("iphone")
    assert (
        mapped.clients["needed_memory_bytes"][iphone] < plain.clients["needed_memory_bytes"][iphone]
    ).all()
    assert (mapped.clients["usable_memory_bytes"] == plain.clients["usable_memory_bytes"]).all()
    for run in (plain, mapped):
        short = run.clients["client"][run.clients["needed_memory_bytes"] > run.clients["usable_memory_bytes"]]
        refused = set(run.visits["client"][run.visits["outcome"] == "memory"])
        assert refused <= set(short)
        assert not set(run.visits["client"][run.visits["trained_s"].notna()]) & set(short)
        assert verify(run) == []
    assert (plain.visits["outcome"] == "memory").any()


def test_two_programs_on_one_device_are_refused_and_not_by_the_same_need():
    device = "snapdragon-8-elite-phone"
    people = draw_devices("mixed_edge_2026", 2000, seed=0)
    mine = np.flatnonzero(people.device == device)
    assert {people.memory_model(int(client)).name for client in mine} == {"cpp", "llama.cpp"}
    assert len({people.usable_memory_bytes[client] for client in mine}) == 1


def test_ranks_by_memory_know_the_program():
    settings = asked(
        charge=CHARGE | {"sequence": 64, "r": 256},
        task={"layout": "lora", "dimension": 32},
        lora={"r": 16, "rank_by": "memory", "ranks": [1, 4, 16]},
        aggregator={"kind": "hetlora"},
    )
    plan = prepare(settings)
    for client in range(100):
        fits = [
            r for r in (1, 4, 16) if _need(plan, r, client) <= plan.population.usable_memory_bytes[client]
        ]
        assert plan.ranks[client] == max(fits, default=1)
    rooms, place = plan.population.rooms
    assert [rooms[k] for k in place] == [
        (plan.population.usable_memory_bytes[c], plan.population.memory_model(c)) for c in range(100)
    ]


def _need(plan, rank, client):
    return plan.sizing.training_plan(1e15, rank, plan.population.memory_model(client)).memory.memory_bytes


def test_measures_are_taken_by_what_the_program_keeps():
    settings = asked(charge=CHARGE | {"batch": 8}, memory={"when_short": ["micro-batch", "checkpoint"]})
    run = simulate(settings, timeline_only=True)
    assert run.clients["memory_plan"].str.contains("micro-batch").any()
    assert verify(run) == []


def test_an_app_on_the_screen_has_more_memory():
    people = draw_devices("mixed_edge_2026", 500, seed=0)
    shown = with_software(people, ComputeConfig(app="foreground"), 0)
    android = np.array([os == "android" for os in people.hardware.table.os[people.hardware.row]])
    assert shown.usable_memory_bytes[android] == pytest.approx(2 * people.usable_memory_bytes[android])
    assert (shown.usable_memory_bytes >= people.usable_memory_bytes).all()
    assert (shown.flops_per_s == people.flops_per_s).all()


def test_where_the_app_is_has_no_effect_on_a_table_that_says_how_much_is_usable():
    settings = experiment(
        SYNC, 30, population={"preset": "mixed_edge_2025", "clients": 30}, compute={"app": "foreground"}
    )
    assert [problem.path for problem in misfits(settings)] == [("compute", "app")]


def test_tables_of_speeds_are_charged_as_before():
    people = draw_devices("mixed_edge_2025", 300, seed=0)
    assert {people.memory_model(client) for client in range(300)} == {PLAIN}
    rooms, place = people.rooms
    assert [rooms[k][0] for k in place] == people.usable_memory_bytes.tolist()


def own_stack(tmp_path, *, memory):
    """A table of stacks with one row like `cpp-blas`, with another program or with no word on it."""
    lines = [x for x in hetero_profiles.locate("stacks.csv").read_text("utf-8").splitlines() if x[0] != "#"]
    row = next(row for row in csv.DictReader(lines) if row["stack"] == "cpp-blas") | {"stack": "own"}
    names = [name for name in row if memory is not None or name != "memory"]
    path = tmp_path / "mine.csv"
    with path.open("w", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, extrasaction="ignore")
        writer.writeheader()
        writer.writerow(row | {"memory": memory})
    return path


@pytest.mark.parametrize(("memory", "kept"), [("mesp", "mesp"), (None, "plain")])
def test_a_stack_of_ones_own_names_a_program_or_none(tmp_path, memory, kept):
    table = own_stack(tmp_path, memory=memory)
    stack = {"phone-low": "own", "phone-mid": "own"}
    people = draw_devices("mixed_edge_2026", 200, seed=0)
    drawn = with_software(people, ComputeConfig(stacks=table, stack=stack), 0)
    low = np.flatnonzero(np.isin(people.tier, ("phone-low", "phone-mid")))
    assert {drawn.memory_model(int(client)).name for client in low} == {kept}
    assert drawn.sources["memory_models_sha256"]
