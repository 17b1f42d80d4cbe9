"""The quadratic task against its own algebra."""

from __future__ import annotations

import math
import pickle
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from fedsim.component import build
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import ExperimentError, WorkerError
from fedsim.jobs import Job, TaskContext
from fedsim.metrics.sums import add_sums
from fedsim.tasks._descent import descend
from fedsim.tasks.quadratic import PROBE_CLIENTS, Quadratic, QuadraticTask

SGD = LocalConfig(optimizer="sgd", lr=0.1, steps=3)


def quadratic(clients=5, seed=0, local=SGD, **fields) -> QuadraticTask:
    return Quadratic(**fields).build(TaskContext(clients, seed, LoraConfig(r=2, alpha=4.0), local))


def train(task, client=0, start=None, local=SGD):
    return task.train([Job(client, 0, task.initial() if start is None else start, local, 0)])[0]


@settings(max_examples=60, deadline=None)
@given(
    lr=st.floats(1e-4, 1.9),
    steps=st.integers(1, 40),
    prox_mu=st.floats(0.0, 1.0),
    weight_decay=st.floats(0.0, 0.5),
    seed=st.integers(0, 99),
)
def test_the_closed_form_equals_gradient_descent_step_by_step(lr, steps, prox_mu, weight_decay, seed):
    rng = np.random.default_rng(seed)
    start, optimum = rng.standard_normal((2, 6))
    local = LocalConfig(optimizer="sgd", lr=lr, steps=steps, prox_mu=prox_mu, weight_decay=weight_decay)
    x, losses = start.copy(), []
    for _ in range(steps):
        losses.append(0.5 * np.sum((x - optimum) ** 2))
        x = x - lr * ((x - optimum) + prox_mu * (x - start) + weight_decay * x)
    end, loss, square = descend(start, optimum, local, steps)
    np.testing.assert_allclose(end, x, rtol=1e-9, atol=1e-9 * max(1.0, np.abs(x).max()))
    assert loss == pytest.approx(np.mean(losses), rel=1e-9)
    assert square == pytest.approx(np.mean(np.square(losses)), rel=1e-9)


def test_a_client_at_distance_one_halves_it_with_a_learning_rate_of_one_half():
    task = quadratic(dimension=1)
    start = (task.optima[2] + 1.0).astype(np.float32)
    update = train(task, client=2, start=start, local=LocalConfig(optimizer="sgd", lr=0.5, steps=2))
    assert update.end[0] - task.optima[2, 0] == pytest.approx(0.25, abs=1e-6)
    assert update.loss == pytest.approx((0.5 + 0.125) / 2, rel=1e-6)
    assert update.end.dtype == np.float32


def test_epochs_count_whole_batches_and_every_example():
    task = quadratic(examples=20, tokens_per_example=7)
    local = LocalConfig(optimizer="sgd", lr=0.1, epochs=2, batch=8)
    update = train(task, local=local)
    assert (update.steps, update.examples, update.tokens) == (6, 20, 280)
    assert task.tokens(0, local) == 280


def test_steps_use_as_many_full_batches():
    task = quadratic(examples=20, tokens_per_example=7)
    update = train(task, local=LocalConfig(optimizer="sgd", lr=0.1, steps=4, batch=8))
    assert (update.steps, update.examples, update.tokens) == (4, 20, 224)
    small = train(quadratic(examples=3), local=LocalConfig(optimizer="sgd", lr=0.1, steps=4, batch=8))
    assert (small.examples, small.tokens) == (3, 12 * 16)
    few = train(quadratic(examples=100), local=LocalConfig(optimizer="sgd", lr=0.1, steps=4, batch=8))
    assert few.examples == 32, "different examples, at most those of the shard"


def test_unequal_examples_are_positive_differ_and_have_the_stated_median():
    sizes = [quadratic(examples="unequal").examples(k) for k in range(2000)]
    assert min(sizes) >= 1
    # the median of n lognormal draws has a relative error of 1.25 sigma / sqrt(n) = 2.8 %
    assert np.median(sizes) == pytest.approx(32, rel=0.1)
    assert np.std(np.log(sizes)) == pytest.approx(1.0, abs=0.1)


def test_two_optima_are_spread_apart_and_their_middle_is_at_the_stated_distance():
    task = quadratic(clients=4000, spread=3.0, distance=10.0)
    one, other = task.optima[:2000], task.optima[2000:]
    rms = math.sqrt(np.mean(np.sum((one - other) ** 2, axis=1)))
    assert rms == pytest.approx(3.0, rel=0.03)
    assert np.linalg.norm(task.optima.mean(axis=0) - task.initial()) == pytest.approx(10.0, abs=0.15)


def test_without_spread_all_clients_want_the_same():
    task = quadratic(spread=0.0)
    assert np.all(task.optima == task.optima[0])


def test_an_optimum_does_not_depend_on_how_many_clients_there_are():
    assert np.array_equal(quadratic(clients=3).optima, quadratic(clients=9).optima[:3])
    assert not np.array_equal(quadratic(seed=0).optima, quadratic(seed=1).optima)


def test_averaging_all_clients_converges_to_the_mean_optimum_and_to_the_least_loss():
    task = quadratic(clients=6, spread=2.0)
    x = task.initial()
    for _ in range(60):
        x = np.mean([train(task, k, x).end for k in range(6)], axis=0, dtype=np.float64).astype(np.float32)
    np.testing.assert_allclose(x, task.optima.mean(axis=0), atol=1e-5)
    loss = task.metrics(add_sums([task.score(x, p) for p in task.probes("test")]))["loss"]
    assert loss == pytest.approx(task.describe()["least_loss"], rel=1e-6)


def test_probes_of_the_test_split_together_give_the_mean_objective_over_clients():
    task = quadratic(clients=PROBE_CLIENTS + 10)
    x = np.full(8, 0.5, dtype=np.float32)
    by_hand = np.mean([0.5 * np.sum((x - c) ** 2) for c in task.optima])
    for split in ("test", "valid", "clients"):
        metrics = task.metrics(add_sums([task.score(x, p) for p in task.probes(split)]))
        assert metrics["loss"] == pytest.approx(by_hand, rel=1e-12)
        assert metrics["perplexity"] == pytest.approx(math.exp(by_hand), rel=1e-9)
    assert len(task.probes("test")) == 2
    assert len(task.probes("clients")) == PROBE_CLIENTS + 10


def test_windows_keep_the_first_clients_and_client_scores_one():
    task = quadratic()
    x = task.initial()
    (first_two,) = task.probes("test", windows=2)
    assert task.score(x, first_two)["tokens"] == 2.0
    (own,) = task.probes("client", client=3)
    assert task.score(x, own) == {"nll": 0.5 * np.sum((x - task.optima[3]) ** 2), "tokens": 1.0}


def test_the_lora_layout_starts_with_b_at_zero_and_obeys_the_same_algebra():
    task = quadratic(layout="lora", dimension=4)
    arrays = task.layout.arrays(task.initial())
    assert arrays["w.lora_A"].shape == (2, 4)
    assert np.all(arrays["w.lora_B"] == 0.0)
    assert np.any(arrays["w.lora_A"] != 0.0)
    assert task.layout.modules[0].scale == 2.0
    expected = task.optima[1] + 0.9**3 * (task.initial() - task.optima[1])
    np.testing.assert_allclose(train(task, client=1).end, expected, rtol=1e-6)
    assert (task.shape.adapter_params, task.shape.full) == (16, False)
    assert (quadratic().shape.adapter_params, quadratic().shape.full) == (8, True)


def test_results_do_not_depend_on_how_jobs_are_grouped_or_on_pickling():
    task = quadratic(delay_s=0.002)
    jobs = [Job(k, 0, task.initial(), SGD, 0) for k in range(5)]
    together = task.train(jobs)
    copy = pickle.loads(pickle.dumps(task))
    apart = [copy.train([job])[0] for job in reversed(jobs)][::-1]
    for one, other in zip(together, apart, strict=True):
        assert one.end.tobytes() == other.end.tobytes()
        assert one.loss == other.loss


def test_a_pickled_task_does_not_carry_its_optima():
    task = quadratic(clients=5000)
    assert task.optima.nbytes == 320_000
    assert len(pickle.dumps(task)) < 5_000


@pytest.mark.parametrize("kept", [0, 24, 10**9])
def test_optima_of_many_clients_are_drawn_when_they_are_needed_with_the_same_bits(monkeypatch, kept):
    whole = quadratic(clients=7, dimension=5)
    jobs = [Job(k, 0, whole.initial(), SGD, 0) for k in range(7)]
    expected = whole.train(jobs)
    monkeypatch.setattr("fedsim.tasks._descent.KEPT_NUMBERS", kept)
    apart = quadratic(clients=7, dimension=5)
    spread = whole.optima - whole.optima.mean(axis=0)

    for one, other in zip(expected, apart.train(jobs), strict=True):
        assert (one.end.tobytes(), one.loss) == (other.end.tobytes(), other.loss)
    for probe in (*apart.probes("test"), *apart.probes("client", client=3)):
        assert apart.score(whole.initial(), probe) == whole.score(whole.initial(), probe)
    assert apart.describe()["least_loss"] == pytest.approx(
        0.5 * np.mean(np.sum(spread**2, axis=1)), rel=1e-12
    )
    assert ("all" in vars(apart._optima)) == (kept > 24)


def test_a_task_of_many_numbers_holds_no_matrix_of_all_clients():
    task = quadratic(clients=3000, dimension=2000)
    tracemalloc.start()
    try:
        task.train([Job(k, 0, task.initial(), SGD, 0) for k in range(0, 3000, 1000)])
        task.describe()
        assert tracemalloc.get_traced_memory()[1] < 12e6  # all of them are 48 MB
    finally:
        tracemalloc.stop()


def test_a_delay_takes_wall_time_only():
    slow, quick = quadratic(delay_s=0.04), quadratic()
    began = time.perf_counter()
    ends = [train(slow, k % 5).end for k in range(20)]
    took_s = time.perf_counter() - began
    assert took_s > 0.1  # the mean of 20 uniform draws on (0, 0.04) sums to 0.4 with deviation 0.05
    assert all(np.array_equal(end, train(quick, k % 5).end) for k, end in enumerate(ends))


def test_a_learning_rate_above_two_diverges_without_a_warning():
    update = train(quadratic(), local=LocalConfig(optimizer="sgd", lr=1e30, steps=50))
    assert not np.all(np.isfinite(update.end))


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"optimizer": "adamw"}, "local.optimizer"),
        ({"momentum": 0.9}, "local.momentum"),
        ({"clip_norm": 1.0}, "local.clip_norm"),
    ],
)
def test_what_has_no_closed_form_is_refused(change, where):
    local = LocalConfig(**{"optimizer": "sgd", "lr": 0.1, "steps": 3, **change})
    with pytest.raises(ExperimentError, match=where) as refused:
        quadratic(local=local)
    assert "fix:" in str(refused.value)


def test_a_client_that_does_not_exist_is_an_error():
    with pytest.raises(WorkerError, match="5 clients"):
        train(quadratic(), client=5)


def test_the_saved_arrays_come_back_by_name(tmp_path):
    whole, lora = quadratic(), quadratic(layout="lora")
    vector = np.arange(8, dtype=np.float32)
    whole.save_adapter(vector, tmp_path / "whole")
    assert np.array_equal(load_file(tmp_path / "whole" / "model.safetensors")["x"], vector)
    lora.save_adapter(lora.initial(), tmp_path / "lora")
    saved = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert {name: array.shape for name, array in saved.items()} == {"w.lora_A": (2, 8), "w.lora_B": (8, 2)}


def test_the_kind_is_found_by_name():
    assert build("tasks", {"kind": "quadratic", "dimension": 3}) == Quadratic(dimension=3)


@pytest.mark.parametrize("trains", ["AB", "A", "B"])
def test_a_job_moves_its_own_slots_of_the_factors_that_it_trains_and_its_loss_counts_the_others_too(trains):
    task = quadratic(layout="lora", dimension=3)
    start = np.arange(1.0, 13.0, dtype=np.float32)
    update = task.train([Job(1, 0, start, SGD, 0, rank=1, trains=trains)])[0]
    a, b = (task.layout.arrays(update.end)[f"w.lora_{f}"] for f in "AB")
    began = task.layout.arrays(np.where(task.layout.slots(1), start, 0).astype(np.float32))
    aim = task.layout.arrays(task.optima[1].astype(np.float32))
    whole = 0.5 * sum(np.sum((began[n] - aim[n]) ** 2) for n in began)
    gap = 0.5 * sum(
        np.sum((began[n] - aim[n])[task.layout.arrays(task.layout.slots(1, trains))[n]] ** 2) for n in began
    )

    assert not np.any(a[1:])
    assert not np.any(b[:, 1:])
    for found, name, moves in ((a[:1], "w.lora_A", "A" in trains), (b[:, :1], "w.lora_B", "B" in trains)):
        x, c = (arrays[name][:1] if name[-1] == "A" else arrays[name][:, :1] for arrays in (began, aim))
        np.testing.assert_allclose(found, c + 0.9**3 * (x - c) if moves else x, rtol=1e-5)
    # before each of the three steps what moves is 1, 0.9 and 0.81 of its way from the optimum
    assert update.loss == pytest.approx(whole + gap * (np.mean([1, 0.9**2, 0.9**4]) - 1), rel=1e-5)
