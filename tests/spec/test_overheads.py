"""What surrounds training: how often things are called, shared, held and imported; never how long."""

import subprocess
import sys
import textwrap
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from worlds import experiment, plan
from worlds.whole_runs import finished

from fedsim.adapters import sums
from fedsim.adapters.adapter import Adapter, Layout, Tensor
from fedsim.adapters.sums import Moves, WeightedSum
from fedsim.aggregators._base import Contribution, ServerModel
from fedsim.aggregators.fedit import FedIT
from fedsim.aggregators.mixing import Mixing
from fedsim.clock.auto import context_of, with_auto_as_stored, with_auto_filled
from fedsim.config.learning import LocalConfig
from fedsim.executors.inline import Inline
from fedsim.executors.packing import packed, unpacked
from fedsim.executors.queue import AHEAD, JobQueue
from fedsim.jobs import CALL_BYTES, Job, Probe, ScoreJob, Update
from fedsim.records.writer import Writer
from fedsim.runs.simulation import course, simulate
from fedsim.server.values.evaluations import VERSIONS_OPEN

LOCAL = LocalConfig(optimizer="sgd", lr=0.1, steps=1)
SYNC = {"kind": "synchronous", "cohort": 12}
BUFFERED = {"kind": "buffered", "concurrency": 8, "buffer": 3}


class Watched(Inline):
    """The inline executor, noting what it is asked for and in which order it is done."""

    def __init__(self):
        super().__init__()
        self.shared, self.trained, self.log = [], [], []

    def share(self, vector):
        self.shared.append(vector)
        return super().share(vector)

    def train(self, batch):
        self.trained.append([(job.client, job.visit) for job in batch])
        return self._noted("train", super().train(batch))

    def score(self, batch):
        return self._noted("score", super().score(batch))

    def _noted(self, verb, ticket):
        result = ticket.result
        ticket.result = lambda: (self.log.append(verb), result())[1]
        return ticket


# calls ------------------------------------------------------------------------------------------


def test_a_round_is_one_call_a_client_batch_and_one_shared_vector_a_version():
    executor = Watched()
    blocks = {"numerics": {"client_batch": 4}, "budget": {"commits": 3}, "evaluate": {"every_commits": 1}}
    finished(plan(SYNC, [1.0] * 12, **blocks), executor)

    assert [len(batch) for batch in executor.trained] == [4] * 9  # 3 rounds of 12
    assert len(executor.shared) == 4  # versions 0 to 3, for the visits and the scores of each


def test_batches_hold_the_visits_in_the_order_in_which_the_commit_reads_them():
    executor = Watched()
    finished(plan(SYNC, [1.0] * 12, numerics={"client_batch": 5}, budget={"commits": 1}), executor)

    assert [client for batch in executor.trained for client, _ in batch] == list(range(12))


def test_a_clients_own_vector_travels_with_its_job_and_is_not_shared_with_everybody():
    executor = Watched()
    alone = {"aggregator": {"kind": "local-only"}, "budget": {"commits": 20}}
    finished(plan({"kind": "buffered", "concurrency": 6, "buffer": 1}, [1.0] * 6, **alone), executor)

    assert len(executor.shared) == 2  # version 0: for the run, and to compare with after it


def test_an_update_is_let_go_once_it_is_summed():
    """While a round is read, few more vectors are alive than the block that a sum takes in one go."""
    ends, alive = [], []

    class Counting(Inline):
        def train(self, batch):
            ticket = super().train(batch)
            result = ticket.result

            def counted():
                updates = result()
                ends.extend(weakref.ref(update.end) for update in updates)
                alive.append(sum(end() is not None for end in ends))
                return updates

            ticket.result = counted
            return ticket

    everybody = {"kind": "synchronous", "cohort": 60}
    finished(plan(everybody, [1.0] * 60, numerics={"client_batch": 2}, budget={"commits": 1}), Counting())

    assert len(ends) == 60
    assert max(alive) <= sums.ROWS + 2 * 2


class Scoring(Inline):
    """The inline executor, noting the probes of each call of scores."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def score(self, batch):
        self.calls.append([job.probe for job in batch])
        return super().score(batch)

    def clients(self, split):
        """Whose pieces of a split each call had."""
        of_split = ([p for p in call if p.split == split] for call in self.calls)
        return [[p.client for p in call] for call in of_split if call]


def test_the_models_of_clients_are_scored_a_client_batch_a_call():
    """After the run: the shared and the own model of 12 clients in batches of 5, so 4 + 4 + 4."""
    executor = Scoring()
    blocks = {"personal": {"kind": "fine-tune"}, "numerics": {"client_batch": 5}, "budget": {"commits": 1}}
    finished(plan(SYNC, [1.0] * 12, **blocks), executor)

    calls = executor.clients("client")
    assert sorted(len(set(clients)) for clients in calls) == [2, 2, 5, 5, 5, 5]
    assert sorted({c for clients in calls for c in clients}) == list(range(12))


def test_polled_clients_answer_a_client_batch_a_call():
    executor = Scoring()
    sampler = {"kind": "power-of-choice", "candidates": 8}
    blocks = {"sampler": sampler, "numerics": {"client_batch": 4}, "budget": {"commits": 1}}
    finished(plan({"kind": "synchronous", "cohort": 3}, [1.0] * 12, **blocks), executor)

    assert [len(set(clients)) for clients in executor.clients("shard")] == [4, 4]


# sums -------------------------------------------------------------------------------------------


def terms(seed, n, size):
    rng = np.random.default_rng(seed)
    starts = list(rng.standard_normal((2, size)).astype(np.float32))
    return [
        (float(rng.uniform(0.1, 9.0)), (rng.standard_normal(size)).astype(np.float32), starts[k * 2 // n])
        for k in range(n)
    ]


def summed(given_):
    total = WeightedSum(len(given_[0][1]))
    for weight, vector, origin in given_:
        total.add(weight, vector, origin)
    return total.value()


def test_a_streaming_sum_is_the_plain_float64_loop_to_the_bit():
    """For each run of terms with one origin: the terms in order, then the origin times their weight."""
    given_ = terms(0, 20, 1000)
    plain = np.zeros(1000)
    for half in (given_[:10], given_[10:]):
        held = 0.0
        for weight, vector, _ in half:
            plain = plain + vector.astype(np.float64) * weight
            held += weight
        plain = plain + half[0][2].astype(np.float64) * -held

    assert summed(given_).tobytes() == plain.tobytes()


@given(st.integers(1, 40), st.integers(1, 11), st.integers(0, 2000), st.integers(1, 4), st.integers(0, 99))
def test_neither_pieces_nor_rows_nor_threads_change_a_bit_of_a_sum(piece, rows, held, threads, seed):
    given_ = terms(seed, 13, 37)
    expected = summed(given_)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("PIECE", piece), ("ROWS", rows), ("HELD_BYTES", held), ("THREADS", threads)):
            patch.setattr(sums, name, value)
        patch.setattr(sums, "_threads", lambda: pools[threads])
        assert summed(given_).tobytes() == expected.tobytes()


pools = {n: ThreadPoolExecutor(n) for n in range(1, 5)}


@pytest.mark.parametrize(
    ("size", "shared", "mine"),
    [("2048K", "0", 2**21), ("512K", "0-1", 2**18), ("1024K", "0,64", 2**19), ("odd", "0", 2**20)],
)
def test_a_piece_stays_in_what_a_thread_has_of_the_second_cache(size, shared, mine, tmp_path):
    (tmp_path / "size").write_text(f"{size}\n")
    (tmp_path / "shared_cpu_list").write_text(f"{shared}\n")

    assert sums.second_cache_bytes(tmp_path) == mine
    assert sums.second_cache_bytes(tmp_path / "nowhere") == 2**20
    assert 20 * sums.piece_for(mine) <= 0.75 * mine or sums.piece_for(mine) == sums.SHORTEST_PIECE
    assert sums.piece_for(2**12) == sums.SHORTEST_PIECE < sums.piece_for(2**30) == sums.LONGEST_PIECE


def test_a_sum_read_twice_and_added_to_goes_on():
    one, two = terms(1, 2, 5)
    total = WeightedSum(5)
    total.add(*one)
    first = total.value()
    assert total.value().tobytes() == first.tobytes()
    total.add(*two)

    np.testing.assert_allclose(total.value(), summed([one]) + summed([two]), rtol=1e-12)


@given(st.permutations(range(6)))
def test_whole_weights_make_the_average_independent_of_the_order_of_clients(order):
    """Products of float32 numbers and small integers are exact in float64, and so are their sums here."""
    rng = np.random.default_rng(0)
    layout = Layout(tensors=(Tensor("x", (8,)),))
    start = np.zeros(8, np.float32)
    ends = rng.integers(-9, 9, (6, 8)).astype(np.float32) / 8
    model = ServerModel(Adapter(layout, start))
    given_ = [Contribution(c, 0, start, ends[c], c + 1.0, 0, 0, 0, 1.0) for c in range(6)]

    expected = FedIT().apply(None, model, given_)[0].adapter.vector
    shuffled = FedIT().apply(None, model, [given_[c] for c in order])[0].adapter.vector

    assert shuffled.tobytes() == expected.tobytes()
    exact = np.sum(ends * np.arange(1.0, 7.0)[:, None], axis=0) / 21
    assert expected.tolist() == exact.astype(np.float32).tolist()


@pytest.mark.parametrize("rule", [FedIT(), FedIT(normalize="K"), Mixing()])
def test_a_rule_of_one_pass_gives_the_same_from_an_iterator(rule):
    layout = Layout(tensors=(Tensor("x", (5,)),))
    model = ServerModel(Adapter(layout, np.zeros(5, np.float32)))
    given_ = [Contribution(k, 0, u, v, w, k, 0, 0, 1.0) for k, (w, v, u) in enumerate(terms(3, 9, 5))]

    assert rule.one_pass
    one, other = rule.apply(None, model, given_)[0], rule.apply(None, model, iter(given_))[0]
    assert one.adapter.vector.tobytes() == other.adapter.vector.tobytes()


@pytest.mark.parametrize("size", [50, 600])
@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_the_mean_cosine_of_one_pass_is_that_of_the_definition(size, scale):
    """At any scale: squares of float32 vanish below 1e-19 and overflow above 1e19."""
    given_ = [(w, scale * v, scale * u) for w, v, u in terms(4, 2 * sums.ROWS + 3, size)]
    moves = Moves(size)
    assert all(moves.add(start, end) for _, end, start in given_)

    plain = [end.astype(np.float64) - start for _, end, start in given_]
    mean = np.mean(plain, axis=0)
    cosines = [m @ mean / np.linalg.norm(m) / np.linalg.norm(mean) for m in plain]
    assert moves.mean_cosine() == pytest.approx(np.mean(cosines), rel=1e-6)


def test_the_mean_cosine_of_moves_to_their_mean_by_hand_without_what_is_not_finite():
    origin = np.zeros(2, np.float32)
    right_angle, still = Moves(2), Moves(2)
    for end in ([3, 0], [0, 4]):  # mean (1.5, 2): cosines 0.6 and 0.8
        assert right_angle.add(origin, np.array(end, np.float32))
        assert still.add(origin, np.array(end, np.float32))
    still.add(origin, origin)

    assert right_angle.mean_cosine() == pytest.approx(0.7)
    assert np.isnan(still.mean_cosine())
    for bad in (np.nan, np.inf):
        assert not right_angle.add(origin, np.array([1, bad], np.float32))
    assert right_angle.mean_cosine() == pytest.approx(0.7)


# the queue --------------------------------------------------------------------------------------


class Pool:
    """Workers that have done every call by the time somebody looks."""

    def __init__(self):
        self.begun, self.results = [], {}

    def start(self):
        return object()

    def prepare(self, worker):
        return self._ref(("here", None))

    def submit(self, worker, verb, items):
        self.begun.append((verb, names(items)))
        return self._ref(list(items))

    def _ref(self, answer):
        ref = object()
        self.results[ref] = answer
        return ref

    def wait(self, refs, timeout_s):
        return list(refs)

    def fetch(self, ref):
        return self.results.pop(ref)

    def stop(self, worker):
        pass

    def check(self):
        pass

    def facts(self):
        return ""


def names(items):
    return [item.client if isinstance(item, Job) else item.probe.start for item in items]


def queue(workers=2):
    pool = Pool()
    jobs = JobQueue(pool, workers, 30.0)
    jobs.wait_until_ready()
    return pool, jobs


def training(jobs, clients):
    return [jobs.submit("train", [Job(c, 0, None, LOCAL, 0)]) for c in clients]


def scoring(jobs, starts):
    return [jobs.submit("score", [ScoreJob(None, Probe("test", k, k + 1))]) for k in starts]


def test_finished_training_that_nobody_reads_is_bounded_and_all_of_it_comes_in_the_end():
    pool, jobs = queue()
    calls = training(jobs, range(200))
    for call in calls:
        jobs.want(call)
    unread = []
    for k, call in enumerate(calls):
        assert names(jobs.result_of(call)) == [k]
        unread.append(sum(c.done for c in calls[k + 1 :]))

    assert max(unread) <= 2 * AHEAD + 2 * 2  # and what two workers hold
    assert len(pool.begun) == 200


def test_calls_that_nobody_can_read_any_more_do_not_block_the_others():
    _, jobs = queue()
    calls = training(jobs, range(100))
    jobs.result_of(calls[0])
    del calls[1:60]
    assert names(jobs.result_of(calls[-1])) == [99]
    calls.clear()
    last = training(jobs, [500])[0]
    assert names(jobs.result_of(last)) == [500]


def test_the_last_call_may_be_read_first():
    _, jobs = queue()
    calls = training(jobs, range(100))
    assert [names(jobs.result_of(c))[0] for c in reversed(calls)] == list(reversed(range(100)))


def test_scores_are_begun_after_all_training_that_is_queued():
    pool, jobs = queue(workers=1)
    scores = scoring(jobs, range(3))
    jobs.poll()
    assert pool.begun == []
    trained = training(jobs, range(3))
    for call in trained:
        jobs.result_of(call)
    assert [verb for verb, _ in pool.begun[:3]] == ["train"] * 3
    assert [names(jobs.result_of(call)) for call in scores] == [[0], [1], [2]]


def test_what_is_wanted_goes_before_what_was_queued_earlier():
    pool, jobs = queue(workers=1)
    calls = training(jobs, range(10))
    begun = len(pool.begun)
    jobs.want(calls[-1])
    jobs.result_of(calls[-1])
    assert pool.begun[begun][1] == [9]


# evaluation -------------------------------------------------------------------------------------


class Patient(Watched):
    """Scores are never done until somebody waits for them."""

    def _noted(self, verb, ticket):
        ticket = super()._noted(verb, ticket)
        ticket.done = lambda: verb == "train"
        return ticket


@pytest.mark.parametrize("protocol", [SYNC, BUFFERED])
def test_scores_wait_behind_the_training_of_later_commits_but_only_so_many_and_come_in_order(protocol):
    blocks = {"budget": {"commits": 12}, "evaluate": {"every_commits": 1, "splits": ["test", "clients"]}}
    executor, told = Patient(), []
    planned = plan(protocol, [1.0] * 12, **blocks)
    course(
        planned,
        executor,
        Writer(None, planned.experiment),
        lambda kind, facts: told.append((kind, facts)) if kind in ("score", "commit") else None,
    )

    versions = [(facts["version"], facts["split"]) for kind, facts in told if kind == "score"]
    assert versions == [(v, split) for v in range(13) for split in ("test", "clients")]
    made, open_ = 0, []
    for kind, facts in told:
        made = facts["version"] if kind == "commit" else made
        if kind == "score":
            open_.append(made - facts["version"])
    assert max(open_) == VERSIONS_OPEN
    assert executor.log.index("score") > executor.log.index("train")


def test_late_scores_are_the_same_scores():
    blocks = {"budget": {"commits": 7}, "evaluate": {"every_commits": 2}}
    late, _ = finished(plan(BUFFERED, [1.0, 2.0, 3.5] * 4, **blocks), Patient())
    soon, _ = finished(plan(BUFFERED, [1.0, 2.0, 3.5] * 4, **blocks), Inline())

    for table in ("visits", "commits", "scores"):
        assert getattr(late, table).equals(getattr(soon, table))


# batches ----------------------------------------------------------------------------------------


class Sized:
    """A task of which only the size of its adapter is known, and perhaps what it suggests."""

    def __init__(self, floats, suggests=None):
        self.layout = Layout(tensors=(Tensor("x", (floats,)),))
        self.suggested_client_batch = lambda: suggests
        self.suggested_training = lambda: None
        self.suggested_windows = lambda *_: None


@pytest.mark.parametrize(
    ("protocol", "floats", "suggests", "size"),
    [
        ({"kind": "synchronous", "cohort": 10}, 8, None, 3),  # a quarter of the round
        ({"kind": "synchronous", "cohort": 100}, 8, None, 8),
        ({"kind": "synchronous", "cohort": 1000}, 8, None, 31),  # 32 calls
        ({"kind": "synchronous", "cohort": 10_000}, 8, None, 64),
        ({"kind": "synchronous", "cohort": 10_000}, 45_056, None, 23),  # 23 x 45,056 x 4 B <= 4 MiB
        ({"kind": "synchronous", "cohort": 100}, 8, 16, 16),
        ({"kind": "synchronous", "cohort": 40}, 8, 16, 10),
        ({"kind": "buffered", "buffer": 1}, 8, 16, 1),
        ({"kind": "synchronous", "cohort": 100}, CALL_BYTES, 16, 1),
    ],
)
def test_the_size_of_a_client_batch_follows_from_the_task_and_the_round(protocol, floats, suggests, size):
    asked = experiment(protocol, 20_000)
    for workers in (1, 7, "auto"):
        runtime = asked.runtime.model_copy(update={"workers": workers})
        found = with_auto_filled(asked.model_copy(update={"runtime": runtime}), Sized(floats, suggests))
        assert found.numerics.client_batch == size


@pytest.mark.parametrize(("share", "size"), [(1.0, 20), (0.25, 5), (0.3, 6), (2.0, 20)])
def test_workers_that_share_a_gpu_share_a_round(share, size):
    """20 clients a round, of which a whole card would hold 64."""
    asked = experiment({"kind": "synchronous", "cohort": 20}, 20)
    runtime = asked.runtime.model_copy(update={"gpus_per_worker": share})
    found = with_auto_filled(asked.model_copy(update={"runtime": runtime}), Sized(8, 64))
    assert found.numerics.client_batch == size


def test_a_size_that_is_given_stays_and_one_that_is_found_is_written_down(tmp_path):
    given_ = experiment(SYNC, 20, numerics={"client_batch": 7})
    assert with_auto_filled(given_, Sized(8)).numerics.client_batch == 7
    asked = experiment(SYNC, 20, budget={"commits": 1})
    run = simulate(asked, out=tmp_path / "run", report=False)

    assert run.experiment["numerics"]["client_batch"] == 3
    assert with_auto_as_stored(asked, run.experiment).digest == run.info.digest
    assert with_auto_filled(asked, asked.task.build(context_of(asked))).digest == run.info.digest


# between processes ------------------------------------------------------------------------------


def test_arrays_travel_beside_the_pickle_and_stay_where_they_lie():
    block = np.arange(3000, dtype=np.float32).reshape(3, 1000)
    updates = [Update(row, 1, 2, 3, 0.5) for row in block]
    parts = packed(updates)
    back = unpacked(parts)

    assert len(parts[0]) < 4000 < block.nbytes
    assert np.shares_memory(parts[1], block)
    for update, sent in zip(back, updates, strict=True):
        assert update.end.tobytes() == sent.end.tobytes()
        assert np.shares_memory(update.end, block)
    (sums,) = unpacked(packed([{"none": np.empty(0), "one": block}]))
    assert sums["none"].shape == (0,)
    assert sums["one"].tobytes() == block.tobytes()


NO_RAY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "ray":
            raise ImportError("no ray here")
sys.meta_path.insert(0, Refuse())
from fedsim import Experiment, simulate
run = simulate(Experiment.model_validate({
    "population": {"preset": "homogeneous", "clients": 8},
    "task": {"kind": "quadratic"},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
    "protocol": {"kind": "synchronous", "cohort": 4},
    "budget": {"commits": 3},
    "personal": {"kind": "fine-tune"},
    "runtime": {"executor": "inline"},
}))
assert len(run.commits) == 3 and run.visits.computed.all()
assert not [name for name in sys.modules if name.split(".")[0] == "ray"]
print("ran")
"""


def test_the_inline_executor_runs_where_ray_cannot_be_imported():
    code = textwrap.dedent(NO_RAY)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert done.stdout.split() == ["ran"], done.stderr[-2000:]
