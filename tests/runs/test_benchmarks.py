"""The measuring harness: its statistics by hand, its files, and that what it compares is the same work."""

import ast
import importlib
import json
import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parents[2]))  # last: an installed fedsim stays the one that is tested

from benchmarks import __main__ as command
from benchmarks import goals, harness, long_run, machine, plots, processes, profiled, readme
from benchmarks.w1.world import World, made
from fedsim.records.run import load
from fedsim.records.tables import TABLES
from fedsim.records.verify import verify

ROOT = Path(__file__).parents[2]
PEERS = {"w1/flower_run.py", "w1/pfl_run.py", "trivial_flower.py"}
SOURCES = [p.name for p in (ROOT / "benchmarks").glob("*.py")]
SOURCES = sorted(SOURCES + [f"w1/{p.name}" for p in (ROOT / "benchmarks" / "w1").glob("*.py")])
RESULTS = [p for p in sorted((ROOT / "benchmarks" / "results").glob("*.json")) if p.stem in command.MODULES]


# statistics -------------------------------------------------------------------------------------


def test_a_summary_is_median_least_and_largest():
    assert harness.summary([5.0, 1.0, 4.0, 2.0], "ms") == {
        "median": 3.0, "min": 1.0, "max": 5.0, "n": 4, "unit": "ms",
    }  # fmt: skip


def test_a_ratio_is_formed_within_a_repetition():
    # a machine twice as slow in the second repetition changes both, not the ratio: 2, 2, 3, whose median is 2;
    # the ratio of the medians would be 20 / 10 here, and 30 / 10 if the third were as slow as the second
    results = harness.Results("name", harness.Options())
    results.ratio("slow_over_fast", [20.0, 40.0, 15.0], [10.0, 20.0, 5.0])

    assert results.values == {
        "name.slow_over_fast": {"median": 2.0, "min": 2.0, "max": 3.0, "n": 3, "unit": "ratio"}
    }


def test_unequal_repetitions_are_not_paired():
    with pytest.raises(ValueError, match="zip"):
        harness.paired([1.0, 2.0], [1.0])


def test_contestants_take_turns():
    order = []
    runs = {name: (lambda name=name: order.append(name) or len(order)) for name in "ABC"}

    found = harness.interleaved(runs, 2, between=lambda: order.append("-"))

    assert "".join(order) == "-A-B-C-A-B-C"
    assert found == {"A": [2, 8], "B": [4, 10], "C": [6, 12]}


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (99.4, "99.4"), (18.34, "18.3"), (7, "7.00"), (0.034567, "0.0346")],
)
def test_numbers_have_three_digits_and_no_exponent(value, text):
    assert harness.number(value) == text


def test_a_quick_run_makes_one_repetition():
    assert harness.Options(quick=True, repetitions=5).counted == 1
    assert harness.Options(repetitions=7).counted == 7


# a quiet machine --------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """Results and cache under a folder of the test's own."""
    monkeypatch.setattr(harness, "HERE", tmp_path / "benchmarks")
    monkeypatch.setattr(harness, "RESULTS", tmp_path / "benchmarks" / "results")
    monkeypatch.setattr(harness, "CACHE", tmp_path / "benchmarks" / ".cache")
    return tmp_path / "benchmarks"


def busy(monkeypatch, cores):
    monkeypatch.setattr(machine, "busy_cores", lambda _for_s=1.0: cores)


def one_value(results):
    results.listen()
    results.add("time", [1.0, 2.0, 3.0], "ms")


def test_a_busy_machine_is_refused(monkeypatch, folders):
    busy(monkeypatch, 0.8)

    with pytest.raises(harness.Busy, match=r"others use 0\.80 cores .* --anyway"):
        harness.measured("x", one_value, harness.Options())
    assert not (folders / "results").exists()


def test_anyway_measures_and_says_that_it_was_not_quiet(monkeypatch, folders, capsys):
    busy(monkeypatch, 0.8)

    stored = json.loads(harness.measured("x", one_value, harness.Options(anyway=True)).read_text())

    assert stored["quiet"] is False
    assert stored["others_cores"] == {"before": 0.8, "median": 0.8, "max": 0.8}
    assert "do not quote" in capsys.readouterr().err


def test_quick_results_are_kept_apart(monkeypatch, folders):
    busy(monkeypatch, 0.1)

    assert (
        harness.measured("x", one_value, harness.Options(quick=True)).parent == folders / ".cache" / "quick"
    )
    assert harness.measured("x", one_value, harness.Options()).parent == folders / "results"
    assert harness.stored("x")["values"] == {
        "x.time": {"median": 2.0, "min": 1.0, "max": 3.0, "n": 3, "unit": "ms"}
    }
    assert harness.stored("y") is None


@pytest.mark.skipif(not Path("/proc/stat").is_file(), reason="needs /proc")
def test_a_busy_core_is_heard():
    code = "import time\nend = time.time() + 20\nwhile time.time() < end: pass"
    child = subprocess.Popen([sys.executable, "-c", code])
    try:
        time.sleep(0.3)
        assert machine.busy_cores(0.5) > 0.1  # a whole core, unless many others want it too
    finally:
        child.kill()
        child.wait()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").is_file(), reason="needs /proc")
def test_the_scale_weighs_the_whole_tree():
    ballast = "import time; block = bytearray(b'x' * 40 * 2**20); print('up', flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {ballast!r}])"
    child = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, start_new_session=True)
    try:
        assert child.stdout.readline() == b"up\n"
        tree = processes.below({child.pid})
        weights = sorted(processes.pss_mib(pid) for pid in tree)
    finally:
        os.killpg(child.pid, 9)
        child.communicate()
    assert len(tree) == 2
    assert weights[0] < 40 <= weights[1]


def test_a_contestant_that_fails_is_named_with_its_last_words(monkeypatch, tmp_path):
    monkeypatch.setattr(processes, "CACHE", tmp_path)
    script = [sys.executable, "-c", "raise SystemExit('no such peer')"]

    with pytest.raises(processes.Failed, match=r"(?s)broken ended with code 1.*no such peer"):
        processes.run("broken", script)


# files ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_committed_results_have_the_schema(path):
    found = json.loads(path.read_text(encoding="utf-8"))

    assert found["benchmark"] == path.stem
    assert found["quick"] is False
    assert {"cpu", "cores", "memory_gib", "python", "torch", "ray"} <= found["machine"].keys()
    assert found["date"].endswith("UTC")
    assert found["values"]
    for key, value in found["values"].items():
        assert key.startswith(f"{path.stem}.")
        assert value.keys() == {"median", "min", "max", "n", "unit"}
        assert value["n"] >= 1
        if not math.isnan(value["median"]):
            assert value["min"] <= value["median"] <= value["max"]


def test_what_is_held_against_a_goal_was_measured_five_times():
    """A goal that is newer than the results of its benchmark is not measured yet, and its row says so."""
    measured = 0
    for goal in goals.GOALS:
        found = harness.stored(goal.key.partition(".")[0])
        value = None if found is None else found["values"].get(goal.key)
        if found is not None and value is not None:
            measured += 1
            assert value["n"] >= 5
            assert found["quiet"]
    assert measured >= 8


def test_the_readme_is_in_step_with_the_results():
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")

    assert readme.rendered(text) == text, "run: python -m benchmarks readme"


def test_every_benchmark_has_a_table_in_the_readme():
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")

    for name in ("goals", *command.MODULES):
        assert f"<!-- table: {name} -->" in text
    assert readme.TABLES.keys() == command.MODULES.keys()


def test_goals_are_judged_by_the_median():
    goal = goals.Goal("w1.ratio_to_floor", "", "<=", 0.65, 0.50)

    assert goal.reached(harness.summary([0.5, 0.64, 0.9], "ratio"), goal.limit)
    assert not goal.reached(harness.summary([0.5, 0.66, 0.9], "ratio"), goal.limit)
    assert {g.key.partition(".")[0] for g in goals.GOALS} <= command.MODULES.keys()


def test_a_plot_takes_its_points_by_number():
    values = {f"growth.k.ms.fedsim.{k}": {"median": k} for k in (16, 2)} | {"growth.k.ms.stock.2": {}}

    assert plots._points({"values": values}, "growth.k.ms", "fedsim.") == {
        2: {"median": 2},
        16: {"median": 16},
    }


# programs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in SOURCES if n not in PEERS and n != "__main__.py"])
def test_every_module_can_be_imported(name):
    module = "benchmarks." + name.removesuffix(".py").replace("/", ".")

    importlib.import_module(module.removesuffix(".__init__"))


@pytest.mark.parametrize("name", sorted(command.MODULES))
def test_every_benchmark_has_its_function(name):
    assert callable(importlib.import_module(command.MODULES[name]).run)


def imported(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    return found | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("name", sorted(PEERS | {"w1/recipe.py", "w1/stock.py"}))
def test_what_runs_among_peers_needs_nothing_of_fedsim(name):
    names = imported(ROOT / "benchmarks" / name)

    assert not any(n.startswith("fedsim") for n in names)
    assert {n for n in names if n.startswith("benchmarks")} <= {"benchmarks.w1.recipe"}


def test_what_a_run_is_at_is_told_by_files_that_there_are():
    from benchmarks.pace_run import PARTS, part_of

    for word in (word for words in PARTS.values() for word in words if word.startswith("fedsim/")):
        assert (ROOT / word).exists(), word
    own, scores = "fedsim/server/after/personalize.py", "fedsim/server/values/evaluations.py"
    trainer = "torch/nn.py"
    assert part_of([trainer, "/x/fedsim/executors/calls.py", f"/x/{scores}"]) == "scoring"
    assert part_of([trainer, "/x/fedsim/executors/calls.py", f"/x/{own}"]) == "clients' own models"
    assert part_of([trainer, "/x/fedsim/executors/calls.py"]) == "training"
    assert part_of(["/x/simpy/core.py", "/x/fedsim/runs/course.py"]) == "clock"
    assert part_of(["/x/fedsim/runs/course.py"]) == "rest"


def test_an_unknown_benchmark_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "w2"])

    with pytest.raises(SystemExit) as ended:
        command.main()
    assert ended.value.code == 2
    assert "no such benchmark: w2" in capsys.readouterr().err


def test_matrix_products_are_counted_by_hand():
    # one layer, width 2, rank 1, 5 words, a batch of 3 tokens, one step; FLOPs = 2 m k n a product
    world = World(width=2, layers=1, heads=1, vocab=5, batch=1, sequence=3, steps=1, r=1)
    attention = 1 * 3 * 2 * 6 + 2 * 3 * 2 * 1 + 3 * 3 * 1 * 6  # the first input needs no gradient
    projection = 2 * 3 * 2 * 2 + 3 * 3 * 2 * 1 + 3 * 3 * 1 * 2
    up = 2 * 3 * 2 * 8
    down = 2 * 3 * 8 * 2 + 3 * 3 * 8 * 1 + 3 * 3 * 1 * 2
    head = 2 * 3 * 2 * 5

    assert profiled.gemm_flops(world) == 2 * (attention + projection + up + down + head)


@pytest.mark.parametrize(
    ("operator", "title"),
    [
        ("aten::addmm", "matrix products"),
        ("aten::_softmax_backward_data", "softmax and loss"),
        ("aten::native_layer_norm_backward", "normalisation"),
        ("aten::gelu_backward", "activation"),
        ("aten::_fused_adamw_", "optimiser"),
        ("aten::mul_", "element-wise"),
        ("aten::view", "rest"),
        ("mm", "rest"),
    ],
)
def test_operators_are_grouped(operator, title):
    assert profiled.group(operator) == title


# the same work ----------------------------------------------------------------------------------

TINY = World(
    width=16, layers=1, heads=2, vocab=64, positions=32, batch=2, sequence=8, steps=3, r=2, alpha=4,
    clients=4, cohort=2,
)  # fmt: skip


def test_w1_is_the_workload_of_the_goals(monkeypatch):
    from transformers import GPT2Config, GPT2LMHeadModel

    from fedsim.config.learning import LoraConfig
    from fedsim.training import lora

    world = World()
    config = GPT2Config(
        vocab_size=world.vocab, n_positions=128, n_embd=world.width, n_layer=world.layers, n_head=world.heads
    )
    layout = lora.layout(GPT2LMHeadModel(config), LoraConfig(r=8, alpha=16, targets=("c_attn", "c_proj")))

    assert layout.size == 45_056
    assert len(layout.slices) == 24
    assert (world.clients, world.cohort, world.steps, world.batch, world.sequence) == (100, 10, 10, 8, 64)


def test_the_trivial_task_has_w1s_arrays():
    from benchmarks.trivial_task import TrivialTask

    assert TrivialTask(1).layout.size == 45_056
    assert len(TrivialTask(1).layout.tensors) == 24


def test_a_stock_loop_over_the_schedule_ends_where_fedsim_does(tmp_path):
    import fedsim
    from benchmarks.w1 import recipe

    folder = made(TINY, tmp_path, rounds=2)
    blocks = {
        "budget": {"commits": 2},
        "runtime": {"executor": "inline"},
        "numerics": {"training": "sequential"},
    }
    fedsim.simulate(TINY.experiment(folder, **blocks), out=tmp_path / "run")
    from safetensors.numpy import load_file

    stored = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")

    schedule = recipe.Schedule(folder)
    model = recipe.build(folder)
    parameters = recipe.trainable(model, schedule.names)
    vector = schedule.initial
    for tokens, weights in zip(schedule.tokens, schedule.weights, strict=True):
        total = np.zeros(vector.size)
        for batches, weight in zip(tokens, weights, strict=True):
            recipe.write(parameters, vector)
            recipe.train(model, parameters, batches)
            total += weight * recipe.read(parameters)
        vector = (total / weights.sum()).astype(np.float32)

    ours = np.concatenate([stored[name.replace(".default", "")].ravel() for name in schedule.names])
    assert schedule.tokens.shape == (2, 2, 3, 2, 9)
    assert np.abs(ours - schedule.initial).max() > 1e-3
    assert np.abs(ours - vector).max() < 1e-5


def test_a_world_is_written_once(tmp_path):
    folder = made(TINY, tmp_path, rounds=1)
    before = {p.name: p.stat().st_mtime_ns for p in folder.rglob("*")}

    assert made(TINY, tmp_path, rounds=1) == folder
    assert {p.name: p.stat().st_mtime_ns for p in folder.rglob("*")} == before
    assert made(World(**{**vars(TINY), "r": 3}), tmp_path, rounds=1) != folder


def test_a_long_run_that_is_made_is_one_that_is_written_and_its_books_are_right(tmp_path):
    timeline = long_run.repeated(5_000)
    long_run.made(timeline, tmp_path / "made")
    writer = long_run.written(timeline, tmp_path / "written")
    run = long_run.closed(timeline, writer)

    assert len(run.visits) == timeline.times * len(timeline.run.visits) >= 5_000
    assert verify(run) == verify(load(tmp_path / "made")) == []
    for table in TABLES:
        made, written = ((tmp_path / name / f"{table}.parquet").read_bytes() for name in ("made", "written"))
        assert made == written, table
