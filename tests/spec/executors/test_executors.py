"""Executors: inline is the reference; Ray gives the same bits whatever happens to its workers."""

from __future__ import annotations

import logging
import math
import os
import signal
import time
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds.executor_worlds import LOCAL, Tricky, batches, gone, outcome, python, quadratic
from worlds.toy_pool import Toy, queue

from fedsim.errors import DataError, HostError, WorkerError
from fedsim.executors import ray_session as session
from fedsim.executors.calls import single_threaded
from fedsim.executors.inline import Inline
from fedsim.executors.queue import AHEAD, JobQueue, ahead
from fedsim.executors.ray import RayExecutor
from fedsim.executors.ray_worker import SEEN
from fedsim.jobs import Job, Probe, ScoreJob
from fedsim.testing import check_executor


@pytest.fixture(scope="module")
def expected():
    with closing(Inline()) as executor:
        executor.open(quadratic())
        return outcome(executor, quadratic())


# inline -----------------------------------------------------------------------------------------


def test_inline_trains_and_scores_what_the_task_does():
    task = quadratic()
    with closing(Inline()) as executor:
        executor.open(task)
        batch = batches(executor.share(task.initial()))[2]
        direct = task.train([Job(j.client, j.visit, task.initial(), LOCAL, 0) for j in batch])
        ticket = executor.train(batch)
        assert [u.end.tobytes() for u in ticket.result()] == [u.end.tobytes() for u in direct]
        assert ticket.result() is ticket.result()
        probe = task.probes("clients")[5]
        assert executor.score([ScoreJob(task.initial(), probe)]).result() == [
            task.score(task.initial(), probe)
        ]


def test_a_call_nobody_asks_for_is_never_run():
    with closing(Inline()) as executor:
        executor.open(Tricky({0: "raise"}))
        executor.train([Job(0, 0, executor.share(np.zeros(8, np.float32)), LOCAL, 0)])


def test_a_shared_vector_is_read_only_and_not_copied():
    vector = np.zeros(8, np.float32)
    shared = Inline().share(vector)
    assert np.shares_memory(shared, vector)
    assert (shared.flags.writeable, vector.flags.writeable) == (False, True)


def test_an_error_names_client_and_visit_and_keeps_its_cause():
    with closing(Inline()) as executor:
        executor.open(Tricky({5: "raise"}))
        ticket = executor.train(batches(np.zeros(8, np.float32))[1])
        with pytest.raises(WorkerError, match="client 5, visit 2: KeyError: 'boom'") as caught:
            ticket.result()
    cause = caught.value.__cause__
    assert caught.value.blamed == ((5, 2),)
    assert isinstance(cause, KeyError)
    assert cause.__traceback__ is not None
    assert caught.value.exit_code == 1


def test_a_failed_score_names_the_piece():
    with closing(Inline()) as executor:
        executor.open(Tricky({7: "raise"}))
        ticket = executor.score([ScoreJob(np.zeros(8, np.float32), Probe("client", 0, 1, 7))])
        with pytest.raises(
            WorkerError, match=r"score of client of client 7 \[0, 1\): ValueError: cannot score"
        ) as caught:
            ticket.result()
    assert caught.value.blamed == ()


def test_an_error_that_knows_its_exit_code_keeps_it():
    with closing(Inline()) as executor, pytest.raises(DataError, match="no such model") as caught:
        executor.open(Tricky({"warm": "missing"}))
    assert caught.value.exit_code == 2


def test_a_task_that_drops_a_job_is_found_out():
    with closing(Inline()) as executor:
        executor.open(Tricky({2: "drop"}))
        with pytest.raises(WorkerError, match="client 2, visit 2: ValueError: the task returned 0 results"):
            executor.train([Job(2, 2, np.zeros(8, np.float32), LOCAL, 0)]).result()


@pytest.mark.parametrize("executor", [Inline(), RayExecutor(workers=1)])
def test_a_closed_executor_says_so(executor):
    executor.close()
    executor.close()
    with pytest.raises(HostError, match="closed"):
        executor.train([])


def test_torch_has_one_thread_inside_and_its_own_setting_after():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with closing(Inline()) as executor:
            executor.open(quadratic())
            assert torch.get_num_threads() == 1
            torch.set_num_threads(2)  # whoever changes it meanwhile
            executor.train([Job(0, 0, np.zeros(8, np.float32), LOCAL, 0)]).result()
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_the_thread_setting_of_the_environment_comes_back(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    with single_threaded():
        assert os.environ["OMP_NUM_THREADS"] == "1"
    assert os.environ["OMP_NUM_THREADS"] == "3"


# the queue, on workers that are plain objects ---------------------------------------------------


def test_results_belong_to_their_call_in_whatever_order_they_are_asked_for():
    pool = Toy()
    jobs, calls = queue(pool)
    assert [jobs.result_of(call) for call in reversed(calls)] == [[k] for k in reversed(range(12))]
    assert pool.most <= 2
    assert pool.started == 2


def test_a_finished_call_holds_neither_its_jobs_nor_its_place():
    jobs, calls = queue(Toy())
    jobs.result_of(calls[-1])
    assert all(call.items == () for call in calls if call.done)


def test_the_watchdog_counts_only_while_somebody_waits():
    jobs, calls = queue(Toy(), watchdog_s=0.2)
    time.sleep(0.4)
    assert jobs.result_of(calls[-1]) == [11]


def test_calls_still_open_when_the_executor_closes_end_with_an_error():
    jobs, calls = queue(Toy())
    jobs.stop()
    with pytest.raises(HostError, match="closed before"):
        jobs.result_of(calls[3])


def test_a_new_task_drops_old_calls():
    jobs, _ = queue(Toy(mute=[0]))
    jobs.change_task()
    jobs.wait_until_ready()
    call = jobs.submit("train", [Job(30, 0, None, LOCAL, 0)])
    assert jobs.result_of(call) == [30]


@pytest.mark.parametrize(
    ("store_mb", "workers", "batch", "numbers", "calls"),
    [
        (240, 2, 8, 1_000, AHEAD),
        (240, 2, 1, 3_000_000, AHEAD),  # 12 MB a call: room for 10 a worker
        (240, 2, 1, 4_000_000, 5),  # 16 MB: for 7
        (240, 2, 1, 9_500_000, 1),  # 38 MB: for 3
        (240, 2, 4, 9_500_000, 1),  # for none: one is always allowed
        (480, 4, 1, 4_000_000, 5),
        (240, 2, 4, 1_000_000, 5),
    ],
)
def test_as_many_finished_calls_lie_unread_as_the_store_holds_beside_what_the_workers_hold(
    store_mb, workers, batch, numbers, calls
):
    assert ahead(1e6 * store_mb / (4 * numbers), workers, batch) == calls


@settings(max_examples=100, deadline=None)
@given(updates=st.floats(0), workers=st.integers(1, 64), batch=st.integers(0, 512))
def test_the_window_of_unread_calls_is_never_empty_and_never_wider_than_its_most(updates, workers, batch):
    assert 1 <= ahead(updates, workers, batch) <= AHEAD
    assert ahead(math.inf, workers, batch) == AHEAD


@pytest.mark.parametrize(("updates", "most"), [(math.inf, 2 * AHEAD), (2 * 5 * 2, 2 * 3), (0, 2)])
def test_training_is_begun_ahead_only_while_its_results_have_room(updates, most):
    jobs = JobQueue(Toy(), 2, 30.0, updates)
    jobs.wait_until_ready()
    calls = [jobs.submit("train", [Job(2 * k + i, 0, None, LOCAL, 0) for i in (0, 1)]) for k in range(60)]
    unread = []
    for k, call in enumerate(calls):
        assert jobs.result_of(call) == [2 * k, 2 * k + 1]
        time.sleep(0.03)  # longer than between two looks at the answers
        unread.append(sum(c.done for c in calls[k + 1 :]))

    assert most <= max(unread) <= most + 2 * 2  # and what two workers hold


# how many fit -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("free", "n", "fit"),
    [(32 * 2**30, 4, 4), (2 * 2**30, 8, 3), (2**20, 8, 1), (None, 8, 8)],  # (2048 - 400) // 450 = 3
)
def test_workers_auto_follows_cores_and_memory(monkeypatch, free, n, fit):
    monkeypatch.setattr(session, "cores", lambda: n)
    monkeypatch.setattr(session, "free_memory_bytes", lambda: free)
    monkeypatch.setattr(session, "WORKER_BYTES", 450 * 2**20)
    assert session.fitting(session.Needs("auto", 0.0, 0, 0))[0] == fit


def test_an_address_that_nobody_answers_is_one_clear_error():
    began = time.monotonic()
    with pytest.raises(HostError, match="no Ray cluster answers there") as caught:
        RayExecutor(address="127.0.0.1:9").open(quadratic())
    assert time.monotonic() - began < 30.0
    assert caught.value.exit_code == 3
    assert "got '127.0.0.1:9'" in str(caught.value)


@pytest.mark.parametrize(
    ("address", "said"),
    [("ray://h:10001", "not supported"), ("somewhere", "HOST:PORT"), ("h:0", "HOST:PORT")],
)
def test_an_address_that_cannot_be_one_is_refused(address, said):
    with pytest.raises(HostError, match=said):
        RayExecutor(address=address).open(quadratic())


def test_what_fails_ahead_of_the_task_is_logged_and_kept_and_the_executor_is_closed_again(
    monkeypatch, caplog
):
    trouble = HostError("no room for a Ray")

    def fails(ray, needs):
        raise trouble

    monkeypatch.setattr(session, "start", fails)
    executor = RayExecutor(workers=1)
    with caplog.at_level(logging.DEBUG, "fedsim.executors.ray"):
        executor.prestart(["torch"])
    assert executor.prestart_problem is trouble
    assert "no room for a Ray" in caplog.text
    assert executor.places() == []
    with pytest.raises(HostError, match="no room for a Ray"):  # `open` tries again and reports
        executor.open(quadratic())


def test_an_executor_with_nothing_to_start_ahead_needs_no_method_for_it():
    with closing(Inline()) as executor:
        assert executor.prestart(["torch"]) is None
        executor.open(quadratic())


# Ray --------------------------------------------------------------------------------------------


@contextmanager
def on_ray(task, **settings):
    with closing(RayExecutor(**settings)) as executor:
        executor.open(task)
        yield executor


@pytest.mark.ray
def test_the_ray_executor_has_every_property(ray_here):
    check_executor(RayExecutor(workers=1))


@pytest.mark.ray
@pytest.mark.parametrize("workers", [1, 2])
def test_ray_gives_the_bits_of_inline_whatever_the_delays(ray_here, expected, workers):
    with on_ray(quadratic(delay_s=0.02), workers=workers) as executor:
        assert executor.workers == len(executor.places()) == workers
        places = executor.places()
        assert outcome(executor, quadratic()) == expected
        assert executor.places() == places
    assert ray_here.is_initialized()


@pytest.mark.ray
def test_the_window_follows_the_store_and_the_task_and_changes_no_result(ray_here, expected):
    with on_ray(quadratic(dimension=1000), workers=2) as executor:
        store = ray_here.cluster_resources()["object_store_memory"]
        assert executor._queue.room == store / (4 * 1000)
        executor.open(quadratic())
        assert executor._queue.room == store / (4 * quadratic().layout.size)
        executor._queue.resize(0)
        assert outcome(executor, quadratic()) == expected


@pytest.mark.ray
def test_killing_a_worker_in_mid_batch_changes_no_result(ray_here, expected):
    task = Tricky({}, nap_s=0.02)
    with on_ray(task, workers=2) as executor:
        handle = executor.share(task.initial())
        tickets = [executor.train(batch) for batch in batches(handle)]
        tickets[1].result()
        places = executor.places()
        os.kill(int(places[0].split()[1]), signal.SIGKILL)
        updates = [update for ticket in tickets for update in ticket.result()]
        assert [a == b for a, b in zip(places, executor.places(), strict=True)] == [False, True]
    assert [u.end.tobytes() for u in updates] == [bits[0] for bits in expected[0]]


@pytest.mark.ray
def test_errors_name_client_and_visit_and_other_calls_go_on(ray_here):
    task = Tricky({5: "raise", 9: "two words", 13: "exit"})
    with on_ray(task, workers=2) as executor:
        places = executor.places()
        tickets = [executor.train(batch) for batch in batches(executor.share(task.initial()))]
        for k, text in ((1, "client 5, visit 2: KeyError: 'boom'"), (3, "client 13, visit 1: SystemExit: 7")):
            with pytest.raises(WorkerError, match=text) as caught:
                tickets[k].result()
            cause = caught.value.__cause__
            assert isinstance(cause, (KeyError, SystemExit))
            assert "executor_worlds.py" in cause.__notes__[0]
        with pytest.raises(WorkerError, match="client 9, visit 0: TwoWords: odd news"):
            tickets[2].result()
        assert [len(ticket.result()) for ticket in tickets[4:]] == [4] * 6
        assert executor.places() == places


@pytest.mark.ray
def test_a_client_that_always_kills_its_worker_is_an_error_of_the_host(ray_here, expected):
    task = Tricky({6: "die"})
    with on_ray(task, workers=1) as executor:
        tickets = [executor.train(b) for b in batches(executor.share(task.initial()), clients=12)]
        with pytest.raises(HostError, match=r"client 6, visit 0: 5 workers died on it.*its process died"):
            tickets[1].result()
        assert [u.end.tobytes() for u in tickets[2].result()] == [bits[0] for bits in expected[0][8:12]]


@pytest.mark.ray
def test_the_watchdog_ends_a_wait_for_a_stuck_client(ray_here):
    task = Tricky({3: "sleep"})
    with on_ray(task, workers=1, watchdog_s=1.5) as executor:
        ticket = executor.train(batches(executor.share(task.initial()))[0])
        with pytest.raises(HostError, match=r"client 3, visit 0: 3 workers .* nothing finished for 1.5 s"):
            ticket.result()


@pytest.mark.ray
def test_one_handle_serves_many_jobs_and_nothing_piles_up(ray_here):
    counts = ray_here._private.worker.global_worker.core_worker.get_all_reference_counts
    task, next_task = quadratic(dimension=50_000), quadratic(dimension=3)
    with on_ray(task, workers=1) as executor:
        handle = executor.share(task.initial())
        one = [executor.train([Job(k, 0, handle, LOCAL, 0)]).result()[0].end for k in range(4)]
        references = len(counts())
        for _ in range(10):
            executor.train([Job(k, 0, executor.share(one[k]), LOCAL, 0) for k in range(4)]).result()
        assert len(counts()) <= references + SEEN
        whole = task.train([Job(k, 0, task.initial(), LOCAL, 0) for k in range(4)])
        assert [end.tobytes() for end in one] == [update.end.tobytes() for update in whole]
        places = executor.places()
        executor.open(next_task)  # a sweep: the same processes, another task
        assert executor.places() == places
        assert executor.train([Job(0, 0, next_task.initial(), LOCAL, 0)]).result()[0].end.shape == (3,)


@pytest.mark.ray
def test_a_task_that_cannot_load_in_a_worker_says_why(ray_here):
    with pytest.raises(DataError, match="no such model"), on_ray(Tricky({"warm": "missing"}), workers=1):
        pass


@pytest.mark.ray
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"workers": 1, "gpus_per_worker": 0.5}, "runtime.gpus_per_worker=0"),
        ({"workers": 50}, "Ray has 6 CPUs"),
    ],
)
def test_workers_that_would_wait_forever_are_refused_at_once(ray_here, settings, said):
    with pytest.raises(HostError, match=said), on_ray(quadratic(), **settings):
        pass
    assert ray_here.is_initialized()


# whole processes --------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="reads /proc")
def test_close_and_ctrl_c_leave_no_process_and_a_second_use_works():
    script = """
    executor = RayExecutor(workers=2)
    executor.open(t.quadratic())
    assert t.outcome(executor, t.quadratic()) == expected
    print("open", flush=True); input()
    executor.close()
    print("closed", flush=True); input()
    executor.open(t.Tricky({}, nap_s=0.05))
    try:
        tickets = [executor.train(b) for b in t.batches(np.zeros(8, np.float32))]
        print("again", len(tickets[0].result()), flush=True)
        while True:
            executor.train(t.batches(np.zeros(8, np.float32))[0]).result()
    finally:
        executor.close()
    """
    with python(script) as (process, others):
        assert process.stdout.readline() == "open\n"
        assert len(others()) >= 4  # gcs, raylet, two workers
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "closed\n"
        assert gone(others)
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.readline() == "again 4\n"
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does
        assert process.wait(timeout=30) == -signal.SIGINT
        assert gone(others)
