"""Time that the server's commits and the clients' codecs take, where it is asked for: closed forms of sizes alone."""

from __future__ import annotations

from functools import cache

import pytest
from worlds import experiment, plan, simulated
from worlds.audited import BUFFERED, with_rows

from fedsim.clock.plan import prepare
from fedsim.config.experiment import Experiment
from fedsim.cost.decompositions import factored_svd_flops, product_flops, qr_flops
from fedsim.errors import ExperimentError
from fedsim.records.verify import verify
from fedsim.runs.audit import audit
from fedsim.runs.simulation import simulate
from fedsim.server.commit_time import CommitTime

ROUNDS = {"kind": "synchronous", "cohort": 2}
LORA = {
    "task": {"kind": "quadratic", "layout": "lora", "dimension": 6},
    "lora": {"r": 4, "alpha": 8},
}
SERVER = {"compute": {"flops_per_s": 1e3, "memory_bytes_per_s": 1e4}}


def seconds(rule="fedit", ranks=(4, 4), up_bytes=(100, 100), **blocks):
    made = plan(ROUNDS, [1.0, 1.0], **{**LORA, "aggregator": {"kind": rule}, "server": SERVER, **blocks})
    return made, CommitTime(made).seconds(up_bytes, ranks)


def test_a_commit_takes_no_time_unless_it_is_asked_to():
    _, took_s = seconds(server={"compute": "none"})
    assert took_s == 0.0
    run = simulated(ROUNDS, [1.0, 1.0], budget={"commits": 3})
    assert run.commits.time_s.tolist() == pytest.approx([1.0, 2.0, 3.0], abs=1e-4)


def test_a_mean_of_plain_messages_reads_them_and_the_model():
    """2 updates of P numbers: 2 x 2 P operations, 200 bytes of messages, the model read and written."""
    made, took_s = seconds()
    numbers = made.task.layout.size
    assert took_s == pytest.approx(2 * 2 * numbers / 1e3 + (200 + 2 * 4 * numbers) / 1e4)


def test_coded_messages_are_written_and_read_once_more():
    made, plain_s = seconds()
    _, coded_s = seconds(wire={"dtype": "int8"})
    assert coded_s - plain_s == pytest.approx(2 * 2 * 4 * made.task.layout.size / 1e4)


def test_a_client_of_a_quarter_of_the_slots_counts_as_a_quarter():
    made, whole_s = seconds("flexlora", ranks=(4, 4))
    _, cut_s = seconds("flexlora", ranks=(4, 1))
    assert cut_s < whole_s
    numbers = made.task.layout.size
    shapes = [(m.b_shape[0], m.a_shape[1]) for m in made.task.layout.modules]
    of_svd = sum(factored_svd_flops(m, n, 8, 4) - factored_svd_flops(m, n, 5, 4) for m, n in shapes)
    assert whole_s - cut_s == pytest.approx((2 * 0.75 * numbers + of_svd) / 1e3)


@pytest.mark.parametrize(
    ("rule", "extra"),
    [
        ("flora", lambda m, n: product_flops(m, 8, n)),
        ("fedex", lambda m, n: product_flops(m, 4, n)),
        ("flexlora", lambda m, n: factored_svd_flops(m, n, 8, 4)),
        ("fedsvd", lambda m, n: factored_svd_flops(m, n, 4, 4)),
        ("ffa", lambda *_: 0.0),
    ],
)
def test_rules_that_multiply_and_decompose_take_the_time_of_that(rule, extra):
    made, took_s = seconds(rule)
    numbers = made.task.layout.size
    shapes = [(m.b_shape[0], m.a_shape[1]) for m in made.task.layout.modules]
    mean_s = 2 * 2 * numbers / 1e3 + (200 + 2 * 4 * numbers) / 1e4
    assert took_s - mean_s == pytest.approx(sum(extra(m, n) for m, n in shapes) / 1e3)


@pytest.mark.parametrize(
    ("rule", "share"), [("fedit", 1.0), ("ffa", 0.5), ("fedsa", 0.5), ("local-only", 0.0)]
)
@pytest.mark.parametrize("wire", [{}, {"dtype": "bfloat16"}])
def test_only_numbers_that_are_sent_are_added_up_and_decoded(rule, share, wire):
    """FFA sends B, FedSA A, a client alone nothing; coded numbers are written and read once more."""
    blocks = {**LORA, "aggregator": {"kind": rule}, "wire": wire, "server": SERVER}
    made = plan(ROUNDS, [1.0, 1.0], budget={"time_s": 4.0}, **blocks)
    up_bytes, numbers = made.work(0).up_bytes, made.task.layout.size
    coded_bytes = 2 * 2 * 4 * share * numbers if wire else 0
    took_s = 2 * 2 * share * numbers / 1e3 + (2 * up_bytes + 2 * 4 * numbers + coded_bytes) / 1e4
    run = simulate(made, timeline_only=True)

    assert run.commits.time_s.iloc[0] == pytest.approx(1.0 + took_s, abs=1e-4)


def test_decompositions_count_as_golub_and_van_loan_do():
    assert qr_flops(100, 10) == qr_flops(10, 100) == pytest.approx(4 * 100 * (100 - 10 / 3))
    assert factored_svd_flops(100, 80, 10, 4) == pytest.approx(
        qr_flops(100, 10) + qr_flops(80, 10) + 2 * 1000 + 21_000 + 2 * 100 * 40 + 2 * 80 * 40
    )


def test_the_charged_model_is_what_the_server_works_on():
    """Rank 4 of 4 here stands for rank 16 of the declared model's matrices."""

    def prepared(**declared):
        charge = {
            "preset": "gemma-3-270m",
            "r": 16,
            "targets": "attention",
            "tokens_per_visit": 1,
            **declared,
        }
        task = {**LORA["task"], "charge_as": charge}
        blocks = {**LORA, "task": task, "aggregator": {"kind": "flora"}, "server": SERVER}
        return prepare(experiment(ROUNDS, 2, **blocks))

    made = prepared()
    maps = [m for block in made.shape.blocks for m in block.maps if m.rank]
    numbers = made.shape.adapter_params
    mean_s = 2 * 2 * numbers / 1e3 + (200 + 2 * 4 * numbers) / 1e4
    dense = sum(product_flops(m.outputs, 32, m.inputs) for m in maps)
    assert CommitTime(made).seconds([100, 100], [4, 4]) - mean_s == pytest.approx(dense / 1e3)
    with pytest.raises(
        ExperimentError, match=r"layers of .* are not known, on which the work of flora depends"
    ):
        CommitTime(prepared(params=10**8, matmul_params=10**8))


# on the clock -----------------------------------------------------------------------------------


def timed(protocol, train_s, timeline_only=True, **blocks):
    made = plan(protocol, train_s, **{"server": SERVER, **blocks})
    run = simulate(made, timeline_only=timeline_only)
    up_bytes = int(run.visits.up_bytes.max())
    return run, CommitTime(made).seconds([up_bytes] * 2, [0, 0])


def test_who_is_asked_next_waits_for_the_version_that_is_being_made():
    """Rounds of 1 s and a commit of c: version k is there after k (1 + c), and the next round begins then."""
    run, commit_s = timed(ROUNDS, [1.0, 1.0], budget={"commits": 3})

    assert commit_s > 0.01
    ready_s = [(1 + commit_s) * k for k in (1, 2, 3)]
    assert run.commits.time_s.tolist() == pytest.approx(ready_s, abs=1e-4)
    assert sorted(set(run.visits.dispatched_s.round(3))) == pytest.approx([0.0, *ready_s[:2]], abs=1e-3)
    assert run.info.end_time_s == run.commits.time_s.iloc[-1]


def test_commits_wait_for_each_other():
    """Two buffers fill at 1 s: one is committed after the other, and all four are asked again after both."""
    stream = {"kind": "buffered", "concurrency": 4, "buffer": 2}
    run, commit_s = timed(stream, [1.0] * 4, budget={"commits": 4})

    first = [1 + commit_s, 1 + 2 * commit_s]
    assert run.commits.time_s.tolist()[:2] == pytest.approx(first, abs=1e-4)
    again = run.visits[run.visits.dispatched_s > 0].dispatched_s.to_numpy()
    assert again[:4] == pytest.approx([first[1]] * 4, abs=1e-4)


def test_a_version_that_is_not_ready_by_the_end_is_none():
    run, commit_s = timed(ROUNDS, [1.0, 1.0], budget={"time_s": 2 + 1.5 * 0.01})

    assert commit_s > 0.01
    assert len(run.commits) == 1
    assert run.commits.time_s.max() <= run.info.end_time_s


def test_the_schedule_is_the_same_to_the_bit_without_training():
    blocks = {
        **LORA,
        "aggregator": {"kind": "flexlora"},
        "wire": {"dtype": "int8"},
        "compute": {"codecs": True},
    }
    runs = [
        timed(ROUNDS, [1.0, 2.0, 3.0], timeline_only, budget={"commits": 4}, **blocks)[0]
        for timeline_only in (True, False)
    ]
    for column in ("dispatched_s", "landed_s", "ended_s", "joules"):
        assert runs[0].visits[column].tolist() == runs[1].visits[column].tolist()
    assert runs[0].commits.time_s.tolist() == runs[1].commits.time_s.tolist()
    assert runs[1].scores.time_s.max() == runs[1].commits.time_s.max()


# codecs of clients ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "passes", "of_down"),
    [
        ({}, 0, 0),
        ({"dtype": "int8"}, 1, 0),
        ({"dtype": "int4", "down_dtype": "int8"}, 1, 1),
        ({"top_k": 0.1}, 2, 0),
    ],
)
def test_devices_take_bytes_over_bandwidth_for_coded_messages(wire, passes, of_down):
    """Up: float32 numbers, twice where the largest are chosen, and the message; down: the message and the numbers."""
    blocks = {**LORA, "wire": wire}
    made = plan(ROUNDS, [1.0, 1.0], compute={"codecs": True}, **blocks)
    work, numbers = made.work(0), made.task.layout.size
    expected = passes * 4 * numbers + (work.up_bytes if passes else 0)
    expected += of_down * (4 * numbers + work.down_bytes)

    assert work.coded_bytes == pytest.approx(expected)
    assert plan(ROUNDS, [1.0, 1.0], **blocks).work(0).coded_bytes == 0.0
    run = simulate(made, timeline_only=True)
    took_s = (run.visits.trained_s - run.visits.downloaded_s).iloc[0]
    assert took_s == pytest.approx(1.0 + expected / made.population.profile(0).memory_bytes_per_s, rel=1e-9)


@pytest.mark.parametrize(
    ("protocol", "train_s"),
    [
        (ROUNDS, [1.0, 1.0]),
        ({"kind": "buffered", "concurrency": 4, "buffer": 2}, [1.0] * 4),
        ({"kind": "semi-synchronous", "concurrency": 2, "beat_s": 3.0}, [1.0, 2.0]),
    ],
)
def test_the_audit_knows_that_commits_take_time(protocol, train_s):
    run, _ = timed(protocol, train_s, budget={"commits": 4})

    assert verify(run) == []


# what had been spent by a commit -----------------------------------------------------------------

STREAMS = {
    "buffered": {"kind": "buffered", "concurrency": 8, "buffer": 3},
    "polled": {"kind": "buffered", "concurrency": 8, "buffer": 2},
    "landing": {"kind": "semi-synchronous", "concurrency": 8, "beat_s": 600.0, "refill": "landing"},
    "rounds": {"kind": "synchronous", "cohort": 4, "over_select": 1.5, "late": "finish"},
    "tiers": {"kind": "tiers", "tiers": 2, "cohort": 4, "across": "asynchronous"},
}


@cache
def slowly(name):
    """A run whose server works for half an hour on a commit, while other visits come in."""
    slow = {"compute": {"flops_per_s": 1e6, "memory_bytes_per_s": 1e4}}
    made = BUFFERED | {"protocol": STREAMS[name], "server": slow, "budget": {"commits": 12}}
    if name == "polled":
        made |= {"sampler": {"kind": "power-of-choice", "candidates": 20}}
    return simulate(Experiment.model_validate(made), report=False)


@pytest.mark.parametrize("name", STREAMS)
def test_the_totals_of_a_commit_are_those_when_its_updates_were_taken(name):
    """What comes in while the server works is in the totals of a later commit; both halves of the audit know it."""
    run = slowly(name)

    assert (audit(run).problems, audit(run).no_replay) == ((), "")
    ended_s, amounts = run.visits.ended_s.to_numpy(), run.visits.up_bytes.to_numpy()
    until_ready = [int(amounts[ended_s <= at_s].sum()) for at_s in run.commits.time_s]
    assert all(told <= until for told, until in zip(run.commits.total_up_bytes, until_ready, strict=True))


def test_a_buffer_is_taken_when_it_is_full_however_long_the_server_works():
    run = slowly("buffered")

    full_s = run.visits[run.visits.committed_version > 0].groupby("committed_version").landed_s.max()
    ended_s, amounts = run.visits.ended_s.to_numpy(), run.visits.up_bytes.to_numpy()
    assert run.commits.total_up_bytes.tolist() == [amounts[ended_s <= at_s].sum() for at_s in full_s]
    assert run.commits.total_up_bytes.tolist() != [amounts[ended_s <= s].sum() for s in run.commits.time_s]


@pytest.mark.parametrize("column", ["total_up_bytes", "total_down_bytes", "total_joules"])
@pytest.mark.parametrize("off", [lambda rows: 0 * rows, lambda rows: 2 * rows])
def test_totals_that_no_instant_of_the_commit_can_have_are_found_in_the_tables_alone(column, off):
    run = slowly("buffered")
    changed = with_rows(run, "commits", [6], **{column: lambda rows: off(rows[column])})

    assert any(f"commit 7 has {column}" in problem for problem in verify(changed))
