"""A plan as tables: what is known of clients and of the charged model before anything happens."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from worlds import plan, windows

from fedsim.clock import plan_tables
from fedsim.clock.plan_tables import charged_facts, clients_table, windows_in_words
from fedsim.records import tables

ROUND = {"kind": "synchronous", "cohort": 1}


def test_a_row_a_client_with_every_column_of_the_table():
    made = plan(ROUND, [1.0, 2.0, 4.0], online=[[(0.0, 5.0)], [(0.0, math.inf)], [(0.0, math.inf)]])
    columns = tables.fit("clients", clients_table(made))

    assert columns["client"].tolist() == [0, 1, 2]
    assert np.allclose(columns["flops_per_s"][0] / columns["flops_per_s"], [1, 2, 4])
    assert columns["examples"].tolist() == [made.task.examples(client) for client in range(3)]
    assert columns["online_share"].tolist()[1:] == [1.0, 1.0]
    assert set(columns["memory_plan"]) == {"fits"}


def test_who_has_too_little_memory_needs_more_than_is_usable():
    columns = clients_table(plan(ROUND, [1.0, 1.0], memory=[1e12, 1.0]))

    assert (columns["needed_memory_bytes"] > np.array([1e12, 1.0])).tolist() == [False, True]
    assert columns["memory_plan"].tolist() == ["fits", "refused"]


def test_the_charged_model_is_the_one_that_trains_unless_another_is_declared():
    made = plan(ROUND, [1.0, 1.0])
    charged = charged_facts(made)

    assert not charged.declared
    assert (charged.model, charged.params) == (made.shape.name, made.shape.params)
    assert charged.full_model_bytes == 4 * made.shape.params
    assert charged.serialized_adapter_bytes == 4 * made.task.layout.size
    assert sum(charged.clients_by_rank.values()) == 2


def test_what_is_worked_out_for_all_clients_at_once_is_what_each_of_them_has():
    made = plan(ROUND, [1.0, 2.0, 4.0, 8.0], memory=[1e12, 1.0, 1e12, 5.0])
    columns = clients_table(made)

    for client in range(4):
        own = made.training_plan(client)
        assert columns["needed_memory_bytes"][client] == own.memory.memory_bytes
        assert columns["memory_plan"][client] == own.memory.words
        assert columns["tokens"][client] == made.tokens(client)
        assert columns["visit_flops"][client] == own.flops(made.sizing.batches(client, made.experiment.local))


def test_very_many_windows_are_written_as_hashes_of_their_starts_and_stops(monkeypatch):
    times = windows([[(0.0, 5.0), (7.0, 9.5)], [], [(0.1, math.inf)]])
    assert windows_in_words(times)[0].tolist() == ["0.0:5.0 7.0:9.5", "", "0.1:inf"]

    monkeypatch.setattr(plan_tables, "WINDOWS_WRITTEN", 2)
    numbers = [np.array([0.0, 7.0, 5.0, 9.5]), np.zeros(0), np.array([0.1, math.inf])]
    hashes = [hashlib.sha256(array.astype("<f8").tobytes()).hexdigest() for array in numbers]
    assert windows_in_words(times)[0].tolist() == hashes
