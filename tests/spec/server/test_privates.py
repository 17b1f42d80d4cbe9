"""What stays with the clients while a run goes: private parts, second trainings, clients held out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from worlds import experiment

from fedsim.adapters.adapter import Layout, Module
from fedsim.clock.plan import prepare
from fedsim.executors.inline import Inline
from fedsim.files.client_vectors import ClientVectors
from fedsim.jobs import Job, Update
from fedsim.personal.held_out import unseen
from fedsim.server.values.private_parts import PrivateParts
from fedsim.tasks._descent import descend

SYNC = {"kind": "synchronous", "cohort": 4}
# two blocks of 2 slots: A (2, 3) and B (4, 2), A (2, 4) and B (3, 2)
LAYOUT = Layout(modules=(Module("h.0", 2, (2, 3), (4, 2), 1.0), Module("h.1", 2, (2, 4), (3, 2), 1.0)))


def numbers(seed, size=LAYOUT.size):
    return np.random.default_rng(seed).standard_normal(size).astype(np.float32)


def fedper(folder=None):
    return PrivateParts(experiment(SYNC, 8, personal={"kind": "fedper"}), LAYOUT, numbers(0), folder=folder)


@pytest.fixture
def ditto():
    plan = prepare(experiment(SYNC, 8, personal={"kind": "ditto", "lam": 0.5}))
    executor = Inline()
    executor.open(plan.task)
    yield plan, PrivateParts(plan.experiment, plan.task.layout, plan.task.initial(), executor)
    executor.close()


# private parts ----------------------------------------------------------------------------------


def test_a_client_has_no_private_part_before_its_first_visit():
    privates, start = fedper(), numbers(1)

    assert privates.waits
    assert privates.start(3, start) is start


def test_the_server_sees_its_own_values_where_a_client_is_private():
    privates, start, end = fedper(), numbers(1), numbers(2)

    seen = privates.landed(3, 2, start, end)

    assert seen.tobytes() == np.concatenate([end[:14], start[14:]]).tobytes()
    assert privates.kept.get(3).tobytes() == end[14:].tobytes()


def test_a_private_part_survives_until_the_next_visit_while_the_shared_part_moves_on():
    privates, end, later = fedper(), numbers(2), numbers(5)
    privates.landed(3, 2, numbers(1), end)

    assert privates.start(3, later).tobytes() == np.concatenate([later[:14], end[14:]]).tobytes()
    assert privates.start(4, later) is later


def test_slots_that_a_smaller_visit_did_not_train_stay_as_they_were():
    privates, first, second = fedper(), numbers(2), numbers(3)
    privates.landed(3, 2, numbers(1), first)
    privates.landed(3, 1, numbers(1), second)

    a, b = np.split(privates.kept.get(3), [8])
    np.testing.assert_array_equal(a.reshape(2, 4), [second[14:18], first[18:22]])
    np.testing.assert_array_equal(b.reshape(3, 2)[:, 0], second[22:].reshape(3, 2)[:, 0])
    np.testing.assert_array_equal(b.reshape(3, 2)[:, 1], first[22:].reshape(3, 2)[:, 1])


def test_what_is_kept_is_in_the_runs_folder(tmp_path):
    privates = fedper(tmp_path)
    privates.landed(3, 2, numbers(1), numbers(2))

    found = ClientVectors.read(tmp_path / "kept" / "personal.f32")
    assert list(found) == [3]
    assert found.get(3).tobytes() == numbers(2)[14:].tobytes()


def test_a_first_visit_of_few_slots_keeps_version_0_in_the_others():
    privates, end = fedper(), numbers(2)
    privates.landed(3, 1, numbers(1) * LAYOUT.slots(1), end * LAYOUT.slots(1))

    kept = np.where(LAYOUT.slots(1), end, numbers(0))[14:]
    np.testing.assert_array_equal(privates.kept.get(3), kept)
    np.testing.assert_array_equal(privates.start(3, numbers(5))[14:], kept)
    np.testing.assert_array_equal(privates.start(3, numbers(5), 1)[14:], kept * LAYOUT.slots(1)[14:])


def test_the_servers_private_arrays_are_those_of_version_0_whatever_a_rule_makes_of_them():
    privates, made = fedper(), numbers(9)

    left = privates.untouched(made)

    assert left.tobytes() == np.concatenate([made[:14], numbers(0)[14:]]).tobytes()
    assert privates.untouched(left) is left
    none = PrivateParts(experiment(SYNC, 8), LAYOUT, numbers(0))
    assert none.untouched(made) is made


@pytest.mark.parametrize("kind", ["fedper", "ditto"])
def test_what_is_kept_is_in_one_scale(kind):
    """The product of what a client keeps is the same to visits of scales 1 (the layout's), 2 and 4."""
    privates = PrivateParts(experiment(SYNC, 8, personal={"kind": kind}), LAYOUT, numbers(0))
    end = numbers(2)
    if kind == "fedper":
        privates.landed(3, 2, numbers(1), end, 4.0)
    else:
        privates._keep(3, privates._view(None, 4.0, None), end)
    names = [m.name for m in LAYOUT.modules][kind == "fedper" :]

    def products(scale):
        own = privates.own(3, 2, scale)
        whole = own if kind == "ditto" else privates.start(3, numbers(0), 2, scale)
        arrays = LAYOUT.arrays(whole)
        return [(scale or 1.0) * arrays[f"{n}.lora_B"] @ arrays[f"{n}.lora_A"] for n in names]

    arrays = LAYOUT.arrays(end)
    for scale in (None, 1.0, 2.0, 4.0):
        for name, product in zip(names, products(scale), strict=True):
            np.testing.assert_allclose(
                product, 4.0 * arrays[f"{name}.lora_B"] @ arrays[f"{name}.lora_A"], rtol=1e-5
            )


# second trainings -------------------------------------------------------------------------------


def visit(plan, client, number, start):
    return Job(client, number, start, plan.experiment.local, plan.experiment.seed)


def moved(plan, client, v, w, lam=0.5):
    """Ditto's own closed form: 2 steps of 0.1 towards (c + lam w) / (1 + lam)."""
    local = plan.experiment.local.model_copy(update={"prox_mu": lam})
    end, *_ = descend(v.astype(np.float64), plan.task.optima[client], local, 2, centre=w.astype(np.float64))
    return end.astype(np.float32)


def test_two_visits_of_one_client_in_one_commit_are_trained_one_after_the_other(ditto):
    plan, privates = ditto
    w, later = plan.task.initial(), numbers(4, plan.task.layout.size)

    privates.committed([visit(plan, 2, 0, w), visit(plan, 2, 1, later), visit(plan, 5, 0, later)])
    kept = privates.finish()

    first = moved(plan, 2, w, w)
    assert kept.get(2).tobytes() == moved(plan, 2, first, later).tobytes()
    assert kept.get(5).tobytes() == moved(plan, 5, w, later).tobytes()
    assert privates.seen.tolist() == [0, 0, 2, 0, 0, 1, 0, 0]


def test_a_second_model_goes_on_from_commit_to_commit(ditto):
    plan, privates = ditto
    w = plan.task.initial()
    expected = w
    for number in range(4):
        privates.committed([visit(plan, 2, number, w)])
        expected = moved(plan, 2, expected, w)

    assert privates.finish().get(2).tobytes() == expected.tobytes()


def test_a_second_training_that_is_not_finite_leaves_what_was_kept(ditto):
    plan, privates = ditto
    w = plan.task.initial()
    privates.committed([visit(plan, 2, 0, w)])
    wild = plan.experiment.local.model_copy(update={"lr": 1e30, "steps": 40})
    privates.committed([replace(visit(plan, 2, 1, w), local=wild)])

    assert privates.finish().get(2).tobytes() == moved(plan, 2, w, w).tobytes()
    assert privates.faulty == 1


def test_a_second_model_of_a_smaller_rank_keeps_the_slots_that_it_did_not_train():
    class Zeros:
        """Trains everything in the job's slots to zero."""

        workers = 1

        def share(self, vector):
            return vector

        def train(self, batch):
            self.batch = batch
            return self

        def want(self):
            pass

        def result(self):
            return [Update(np.zeros(LAYOUT.size, np.float32), 1, 1, 1, 0.0) for _ in self.batch]

    asked = experiment(SYNC, 8, personal={"kind": "ditto"}, numerics={"client_batch": 2})
    privates = PrivateParts(asked, LAYOUT, numbers(0), Zeros())
    privates.committed([Job(1, 0, numbers(1), asked.local, 0, rank=1), Job(2, 0, numbers(1), asked.local, 0)])

    kept, slots = privates.finish(), LAYOUT.slots(1)
    np.testing.assert_array_equal(kept.get(1), np.where(slots, 0, numbers(0)))
    assert not kept.get(2).any()


def test_without_training_nothing_is_kept_and_visits_are_counted_all_the_same():
    asked = experiment(SYNC, 8, personal={"kind": "ditto"})
    privates = PrivateParts(asked, LAYOUT, numbers(0))

    privates.committed([Job(1, 0, numbers(1), asked.local, 0)])

    assert not privates.trains_beside
    assert len(privates.finish()) == 0
    assert privates.seen[1] == 1


# clients held out -------------------------------------------------------------------------------


@pytest.mark.parametrize(("asked", "count"), [(0, 0), (3, 3), (0.25, 5), (0.01, 1)])
def test_clients_are_held_out_by_number_or_share_drawn_by_address(asked, count):
    def held(kind, seed=0):
        made = experiment(SYNC, 20, personal={"kind": kind, "unseen": asked}, seed=seed)
        return unseen(made.personal, made)

    assert len(set(held("none"))) == count
    assert held("none") == sorted(held("none")) == held("ditto")  # the same for every method
    assert count in (0, 20) or held("none") != held("none", seed=1)
