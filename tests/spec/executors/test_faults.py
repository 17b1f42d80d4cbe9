"""Workers that die, hang or lose things: a call is tried as it was, then its items alone, and only the cause is blamed."""

from __future__ import annotations

import gc
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds.executor_worlds import Tricky, batches
from worlds.toy_pool import Toy, batches_of, queue

from fedsim.errors import HostError, WorkerError
from fedsim.executors.calls import is_out_of_memory, perform
from fedsim.executors.faults.suspects import ALONE, DEATHS
from fedsim.executors.inline import Inline
from fedsim.jobs import Update

# workers that die -------------------------------------------------------------------------------


def test_a_call_that_kills_every_worker_is_held_to_be_the_cause_and_the_others_are_done():
    pool = Toy(deadly=[5])
    jobs, calls = queue(pool)
    for k, call in enumerate(calls):
        if k == 5:
            with pytest.raises(HostError, match=f"client 5, visit 0: {DEATHS} workers died on it") as caught:
                jobs.result_of(call)
            assert caught.value.exit_code == 3
            assert caught.value.message.blamed == ((5, 0),)
        else:
            assert jobs.result_of(call) == [k]
    assert pool.started == 2 + DEATHS


def test_with_one_worker_only_the_deadly_call_is_blamed():
    jobs, calls = queue(Toy(deadly=[0, 1]), workers=1)
    assert [jobs.result_of(call) for call in calls[2:]] == [[k] for k in range(2, 12)]
    for call in calls[:2]:
        with pytest.raises(HostError, match=f"{DEATHS} workers died on it"):
            jobs.result_of(call)


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_of_a_batch_only_the_client_that_kills_alone_is_blamed(workers):
    pool = Toy(deadly=[5])
    jobs, calls = batches_of(pool, workers=workers)

    with pytest.raises(HostError) as caught:
        jobs.result_of(calls[1])
    said = f"client 5, visit 0: {DEATHS + ALONE} workers died on it, {ALONE} of them with it alone"
    assert str(caught.value).startswith(said)
    assert caught.value.message.blamed == ((5, 0),)
    assert [jobs.result_of(calls[k]) for k in (0, 2)] == [[0, 1, 2, 3], [8, 9, 10, 11]]
    assert pool.submitted.count([4, 5, 6, 7]) == DEATHS
    assert pool.submitted.count([5]) == ALONE


def test_a_batch_is_tried_again_in_the_same_company():
    pool = Toy(unlucky={5: DEATHS - 1})
    jobs, calls = batches_of(pool)

    assert jobs.result_of(calls[1]) == [4, 5, 6, 7]
    assert pool.submitted.count([4, 5, 6, 7]) == DEATHS
    assert [5] not in pool.submitted


def test_a_batch_that_was_unlucky_is_tried_again_whole_after_none_of_its_clients_killed_alone():
    pool = Toy(unlucky={5: DEATHS})
    jobs, calls = batches_of(pool)

    assert jobs.result_of(calls[1]) == [4, 5, 6, 7]
    assert pool.submitted.count([4, 5, 6, 7]) == DEATHS + 1
    assert sorted(cut for cut in pool.submitted if len(cut) == 1) == [[4], [5], [6], [7]]
    assert [jobs.result_of(calls[k]) for k in (0, 2)] == [[0, 1, 2, 3], [8, 9, 10, 11]]


def test_clients_that_kill_only_together_are_named_together():
    jobs, calls = batches_of(Toy(crowded=[5, 6]))

    with pytest.raises(HostError, match="died on them together, and none on one of them alone") as caught:
        jobs.result_of(calls[1])
    assert caught.value.message.blamed == ((4, 0), (5, 0), (6, 0), (7, 0))
    assert "numerics.client_batch" in str(caught.value)


def test_a_batch_that_nobody_waits_for_is_tried_alone_too_and_holds_nobody_up():
    jobs, calls = batches_of(Toy(deadly=[1]), clients=80, workers=1)

    assert jobs.result_of(calls[-1]) == [76, 77, 78, 79]
    assert [jobs.result_of(call)[0] for call in calls[1:-1]] == list(range(4, 76, 4))
    with pytest.raises(HostError, match="client 1, visit 0: 5 workers"):
        jobs.result_of(calls[0])


@settings(max_examples=60, deadline=None)
@given(
    deadly=st.sets(st.integers(0, 23), max_size=4),
    unlucky=st.dictionaries(st.integers(0, 23), st.integers(1, 3), max_size=5),
    workers=st.integers(1, 4),
    size=st.integers(1, 6),
)
def test_whoever_dies_results_are_whole_and_blame_is_on_those_that_kill(deadly, unlucky, workers, size):
    unlucky = {k: n for k, n in unlucky.items() if k not in deadly}
    pool = Toy(deadly=deadly, unlucky=dict(unlucky))
    jobs, calls = batches_of(pool, 24, size, workers)
    for at, call in enumerate(calls):
        clients = list(range(at * size, min((at + 1) * size, 24)))
        chance = sum(unlucky.get(k, 0) for k in clients)
        if deadly & set(clients):
            with pytest.raises(HostError) as caught:
                jobs.result_of(call)
            if not chance:
                ((client, _),) = caught.value.message.blamed
                assert client in deadly
        elif chance < DEATHS or (len(clients) > 1 and chance == DEATHS):
            assert jobs.result_of(call) == clients


# workers that do not answer ---------------------------------------------------------------------


def test_a_worker_that_hangs_is_replaced_and_no_result_changes():
    pool = Toy(once_mute=[5])
    jobs, calls = batches_of(pool, watchdog_s=0.2)

    assert [jobs.result_of(call) for call in calls] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert pool.started == 2 + 1


def test_a_start_may_take_longer_than_the_watchdog_waits_for_work():
    jobs, calls = queue(Toy(deadly=[0], slow_start_s=0.6), clients=2, watchdog_s=0.2)
    assert jobs.result_of(calls[1]) == [1]
    with pytest.raises(HostError, match=f"{DEATHS} workers died on it"):
        jobs.result_of(calls[0])

    jobs.change_task()  # while a worker is on its way
    jobs.wait_until_ready()


def test_a_client_that_always_hangs_is_named_with_what_the_machine_has():
    jobs, calls = queue(Toy(mute=[1]), watchdog_s=0.2)
    assert jobs.result_of(calls[0]) == [0]
    began = time.monotonic()
    with pytest.raises(
        HostError, match=r"client 1, visit 0: 2 workers.*nothing finished for 0.2 s"
    ) as caught:
        jobs.result_of(calls[1])
    assert time.monotonic() - began < 5.0
    assert "toys" in str(caught.value)
    assert "runtime.watchdog_s" in str(caught.value)


def test_of_a_batch_that_hangs_only_the_client_that_hangs_alone_is_blamed():
    jobs, calls = batches_of(Toy(mute=[6]), watchdog_s=0.2)

    with pytest.raises(HostError, match=r"client 6, visit 0: 3 workers died on it, 1 of them with it alone"):
        jobs.result_of(calls[1])
    assert jobs.result_of(calls[2]) == [8, 9, 10, 11]


def test_a_worker_that_dies_at_its_start_is_replaced_but_not_forever():
    pool = Toy(stillborn=2)
    queue(pool)
    assert pool.started == 2 + 2
    with pytest.raises(HostError, match="die while they start"):
        queue(Toy(stillborn=99))


# what is lost with them -------------------------------------------------------------------------


def test_what_was_lost_is_made_again_before_the_call_is():
    pool = Toy(losing={5: 2})
    jobs, calls = batches_of(pool, workers=1)

    assert [jobs.result_of(call) for call in calls] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert [clients[:4] for clients in pool.restored] == [[4, 5, 6, 7]] * 2


def test_a_pool_that_is_gone_ends_the_wait():
    pool = Toy()
    jobs, calls = queue(pool)
    pool.trouble = HostError("ray: its head is gone")

    with pytest.raises(HostError, match="its head is gone"):
        jobs.result_of(calls[-1])


# memory -----------------------------------------------------------------------------------------


class Short:
    """A task of which the first trainings find no memory; `whole`: only those of several jobs."""

    def __init__(self, times, *, whole=False):
        self.times, self.whole, self.tried = times, whole, []

    def train(self, jobs):
        self.tried.append([job.client for job in jobs])
        if self.times and (len(jobs) > 1 or not self.whole):
            self.times -= 1
            _ = np.empty(2**50)  # NumPy's own MemoryError
        return [Update(np.zeros(8, np.float32), 1, 1, 1, 0.0) for _ in jobs]


def trained(task, size=4):
    return perform(task, "train", batches(np.zeros(8, np.float32), size=size)[0], lambda vector: vector)


def test_memory_that_is_short_once_changes_no_result():
    task = Short(1)

    assert len(trained(task)) == 4
    assert task.tried == [[0, 1, 2, 3]] * 2


def test_memory_that_is_always_short_is_the_machine_s_fault_and_names_the_client():
    error = trained(Short(99)).error()

    assert isinstance(error, HostError)
    assert error.exit_code == 3
    assert error.message.where == "client 0, visit 0"
    assert "MemoryError" in str(error)
    assert "numerics.client_batch" in str(error)


def test_memory_that_is_short_for_a_batch_only_names_the_whole_batch():
    error = trained(Short(99, whole=True)).error()

    assert isinstance(error, HostError)
    assert error.message.blamed == ((0, 0), (1, 1), (2, 2), (3, 0))


def test_an_error_that_only_a_batch_raises_names_the_whole_batch():
    failed = perform(Tricky({"together": True}), "train", batches(np.zeros(8, np.float32))[0], lambda v: v)
    with pytest.raises(WorkerError, match=r"client 0, visit 0; client 1, .*; client 3, visit 0: ValueError"):
        raise failed.error()
    assert failed.error().blamed == ((0, 0), (1, 1), (2, 2), (3, 0))


def test_what_a_failure_for_lack_of_memory_had_allocated_is_given_back():
    class Block:
        pass

    class Hungry(Short):
        def train(self, jobs):
            block = Block()
            if [o for o in gc.get_objects() if type(o) is Block] != [block]:
                raise AssertionError("the first try still holds its block")
            return super().train(jobs)

    assert len(trained(Hungry(1))) == 4


@pytest.mark.parametrize(
    ("problem", "short"),
    [
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory"),
            True,
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (type("OutOfMemoryError", (RuntimeError,), {})("torch's own kind"), True),
        (RuntimeError("shapes do not fit"), False),
        (KeyError("boom"), False),
    ],
)
def test_lack_of_memory_is_known_whoever_says_it(problem, short):
    assert is_out_of_memory(problem) == short


def test_inline_says_so_too():
    executor = Inline()
    executor.open(Tricky({}))
    executor._task.train = Short(99).train
    with pytest.raises(HostError, match=r"client 0, visit 0: .*MemoryError"):
        executor.train(batches(np.zeros(8, np.float32))[0]).result()
    executor.close()
