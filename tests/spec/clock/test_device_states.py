"""Devices as rows of numbers: an object that was put away and comes back is the same to the bit, and so is a whole run."""

from __future__ import annotations

import random

import pytest
from pandas.testing import assert_frame_equal

from fedsim.clock.device_training import Machines
from fedsim.clock.online import alarms, device_states
from fedsim.clock.online.alarms import Alarms
from fedsim.clock.online.build import devices_of
from fedsim.config.experiment import Experiment
from fedsim.devices.population import draw
from fedsim.runs.simulation import simulate

CLIENTS = 60
PLAIN = {
    "seed": 5,
    "population": {
        "preset": "mixed_edge_2025",
        "clients": CLIENTS,
        "availability": "charging",
        "on_close": "pause",
    },
    "task": {
        "kind": "quadratic",
        "charge_as": {"preset": "gemma-3-270m", "r": 8, "tokens_per_visit": 20_000},
    },
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 8},
    "compute": {"thermal": {"start_below_c": 38, "stop_above_c": 44, "cap_c": 46}},
    "energy": {"battery": {}},
    "protocol": {"kind": "buffered", "concurrency": 12, "buffer": 4},
    "budget": {"time_s": 40_000.0},
    "evaluate": {"every_commits": 1000},
    "runtime": {"executor": "inline"},
}


def told(device):
    names = [name for name in type(device).__slots__ if not name.startswith("_")]
    return {name: getattr(device, name) for name in names}


def test_a_device_that_was_put_away_is_the_same():
    experiment = Experiment.model_validate(PLAIN)
    population = draw(experiment.population, experiment.population_seed)
    devices = devices_of(experiment, population, Machines(experiment.compute, 0))
    followed = [client for client in range(CLIENTS) if devices[client].charge is not None]
    for client in followed:
        device = devices[client]
        device.settle(1000.0 + client / 3)
        device.go_offline("window")
        device.transition = device.next_transition()
    before = {client: told(devices[client]) for client in followed}
    objects = {client: devices[client] for client in followed}
    devices._put_away()

    assert {client: told(devices[client]) for client in followed} == before
    assert all(devices[client] is not objects[client] for client in followed)


def test_a_device_at_work_is_not_put_away():
    experiment = Experiment.model_validate(PLAIN)
    population = draw(experiment.population, experiment.population_seed)
    devices = devices_of(experiment, population, Machines(experiment.compute, 0))
    working, resting = devices[3], devices[4]
    working.begin_load(0.0, 1.0, None)
    devices._put_away()

    assert devices[3] is working
    assert devices[4] is not resting


@pytest.mark.parametrize("on_close", ["lost", "pause", pytest.param("partial", marks=pytest.mark.slow)])
def test_a_run_with_few_objects_is_the_run_with_all_of_them(monkeypatch, on_close):
    plain = {**PLAIN, "population": {**PLAIN["population"], "on_close": on_close}}
    experiment = Experiment.model_validate(plain)
    whole = simulate(experiment, timeline_only=True)
    monkeypatch.setattr(device_states, "MOST_OBJECTS", 1)
    monkeypatch.setattr(alarms, "MOST", 10)
    few = simulate(experiment, timeline_only=True)

    assert len(whole.visits) > 50
    for name, frame in whole.tables.items():
        assert_frame_equal(few.tables[name], frame, check_exact=True)
    assert few.info.batteries == whole.info.batteries
    assert few.info.away_share == whole.info.away_share


def test_alarms_come_in_their_order_and_void_ones_do_not_hide_the_next(monkeypatch):
    monkeypatch.setattr(alarms, "MOST", 8)
    chance, queue, model = random.Random(0), Alarms(20), {}
    for _ in range(400):
        client = chance.randrange(20)
        queue.stamps[client] += 1
        model[client] = (chance.choice((1.0, 2.0, chance.random())), queue.stamps[client], client)
        queue.set(client, model[client][0])
        if chance.random() < 0.3:
            while (alarm := queue.first()) is not None and queue.stamps[alarm[2]] != alarm[1]:
                queue.pop()
            assert alarm == min(model.values())
            queue.pop()
            del model[alarm[2]]
            queue.stamps[alarm[2]] += 1
            if not model:
                break
