"""Faults of real processes under a run on Ray: the run is that of an undisturbed one, or ends in a sentence and resumes."""

from __future__ import annotations

import os
import time
from contextlib import closing
from pathlib import Path

import pytest
from worlds.executor_worlds import Tricky, python
from worlds.faulty import FaultyTask, faulty
from worlds.ray_faults import fedsim
from worlds.whole_runs import assert_same

from fedsim.errors import HostError, WorkerError
from fedsim.executors.inline import Inline
from fedsim.executors.ray import RayExecutor
from fedsim.records.run import load
from fedsim.runs.resuming.resume import resume
from fedsim.runs.simulation import simulate

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def undisturbed():
    return simulate(faulty({}))


WATCHDOG_S = 15.0


@pytest.fixture(scope="module")
def executor(ray_here):
    """Two workers, who are replaced as they die, for the tests below."""
    with closing(RayExecutor(workers=2, watchdog_s=WATCHDOG_S)) as shared:
        yield shared


def on(executor, behave, marks, folder=None):
    """A run whose clients misbehave."""
    return simulate(faulty(behave, marks=marks), executor, out=folder, report=False)


# workers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behave",
    [
        {1: "die once", 5: "die twice", 9: "die once"},
        {5: "die thrice"},  # its client batch is tried alone, and then again whole
        {5: "hang once"},
        {5: "stop once"},  # SIGSTOP
        {5: "starve once"},
    ],
    ids=lambda behave: "-".join(behave.values()),
)
def test_a_fault_that_passes_changes_no_result(executor, undisturbed, tmp_path, behave):
    run = on(executor, behave, tmp_path)

    assert_same(run, undisturbed)
    assert len(list(tmp_path.iterdir())) >= len(behave)  # it did happen


@pytest.mark.parametrize(
    ("what", "kind", "said"),
    [
        ("die", HostError, "5 workers died on it, 2 of them with it alone"),
        ("hang", HostError, "3 workers died on it, 1 of them with it alone, .* nothing finished for 15 s"),
        ("starve", HostError, "MemoryError"),
        ("raise", WorkerError, "KeyError: 'boom'"),
    ],
)
def test_a_fault_that_stays_names_the_client_alone_and_the_run_resumes_without_it(
    executor, undisturbed, tmp_path, monkeypatch, what, kind, said
):
    folder, marks = tmp_path / "run", tmp_path / "marks"
    marks.mkdir()
    with pytest.raises(kind, match=rf"client 5, visit 0 \(version 0\): .*{said}") as caught:
        on(executor, {5: what}, marks, folder)

    assert f"fedsim replay {folder} --client 5 --visit 0" in caught.value.message.fix
    run = load(folder)
    assert run.info.status == "failed"
    assert run.info.reason == caught.value.message.headline
    assert run.visits[run.visits.outcome == "failed"].client.tolist() == [5]
    monkeypatch.setattr(FaultyTask, "_is_due", lambda *_args: False)  # mended, in this process
    with closing(Inline()) as here:
        assert_same(resume(folder, here, report=False), undisturbed)


# tasks ------------------------------------------------------------------------------------------


class Unreadable(Tricky):
    """Cannot be unpickled where it did not begin."""

    def __reduce__(self):
        return explode_elsewhere, (os.getpid(),)


def explode_elsewhere(pid):
    """Raise in any process but one."""
    if os.getpid() != pid:
        raise ImportError("no module named nowhere")
    return Unreadable({})


def test_a_task_that_a_worker_cannot_unpickle_is_one_sentence(executor):
    with pytest.raises(HostError) as caught:
        executor.open(Unreadable({}))
    assert str(caught.value).startswith("a worker cannot load the task: ")
    assert "no module named nowhere" in str(caught.value)


def test_a_task_that_cannot_be_pickled_is_one_sentence(ray_here):
    task = Tricky({})
    task.lock = (each for each in ())  # generators cannot be pickled
    with pytest.raises(HostError) as caught:
        RayExecutor(workers=1).open(task)
    assert "task Tricky: cannot be sent to the workers: it cannot be pickled" in str(caught.value)


# objects ----------------------------------------------------------------------------------------


def test_a_store_and_a_disk_that_are_full_are_one_sentence():
    script = """
    import ray
    from fedsim.executors import ray_session as session
    session.quiet_environment()
    ray.init(num_cpus=1, object_store_memory=80 * 2**20, include_dashboard=False, log_to_driver=False,
             _system_config={"local_fs_capacity_threshold": 1e-9})
    executor = RayExecutor(workers=1)
    executor.open(t.quadratic())
    handles = []
    try:
        for _ in range(12):
            handles.append(executor.share(np.zeros(4 * 2**20, np.float32)))
    except t.HostError as problem:
        print(problem.exit_code, problem)
    executor.close()
    """
    with python(script) as (process, _):
        said, _ = process.communicate(timeout=240)
    assert said.startswith(
        "3 ray: its shared memory is full, and so is the disk that it would use instead\n  fix:"
    )


# memory -----------------------------------------------------------------------------------------


def test_a_worker_that_ray_kills_for_its_memory_is_named(tmp_path):
    """Ray's own monitor kills what makes the machine run low: here, three gigabytes above what is used now."""
    import psutil

    memory = psutil.virtual_memory()
    threshold = (memory.total - memory.available + 3 * 2**30) / memory.total
    experiment = faulty({5: "swallow"}, executor="ray", workers=1)
    environment = {"RAY_memory_usage_threshold": f"{threshold:.4f}", "RAY_memory_monitor_refresh_ms": "50"}
    with fedsim(tmp_path, experiment, **environment) as command:
        code, said, info = command.ended(280)
        assert command.gone(60)  # a worker that was just starting looks for its raylet for 30 s

    assert (code, info.get("status")) == (3, "failed"), said
    assert "client 5, visit 0 (version 0): 5 workers died on it" in info["reason"]
    assert "the machine ran low on memory" in said


CGROUP = Path("/sys/fs/cgroup/memory")


@pytest.mark.skipif(not os.access(CGROUP, os.W_OK), reason="needs a memory cgroup (v1) that may be changed")
def test_a_worker_that_the_kernel_kills_for_its_memory_is_named(tmp_path, ray_here):
    parent = Path("/proc/self/cgroup").read_text().partition(":memory:")[2].partition("\n")[0].strip("/")
    group = CGROUP / parent / f"fedsim-test-{os.getpid()}"
    group.mkdir()
    try:
        (group / "memory.limit_in_bytes").write_text(str(300 * 2**20))
        with pytest.raises(HostError, match=r"client 5, visit 0 .*5 workers died on it.*its process died"):  # noqa: SIM117
            with closing(RayExecutor(workers=1)) as executor:
                on(executor, {5: f"enter {group} and swallow"}, tmp_path)
        assert "oom_kill 5" in (group / "memory.oom_control").read_text()
    finally:
        stop_s = time.monotonic() + 20
        while (group / "cgroup.procs").read_text() and time.monotonic() < stop_s:
            time.sleep(0.1)
        group.rmdir()


# Ray itself -------------------------------------------------------------------------------------


@pytest.mark.parametrize("program", ["gcs_server", "raylet"])
def test_a_ray_that_is_gone_ends_the_run_in_a_sentence_and_it_resumes(tmp_path, program):
    experiment = faulty({}, executor="ray", workers=1, nap_s=0.05, budget={"commits": 20})
    with fedsim(tmp_path, experiment) as command:
        command.wait_for_commits(2)
        assert command.kill(program)
        code, said, info = command.ended(60)
        assert command.gone()
    assert (code, info["status"]) == (3, "failed")
    assert info["reason"] == f"ray: a process that it cannot do without has ended ({program})"
    assert "`fedsim resume" in said
    assert "Traceback" not in said

    with fedsim(tmp_path, experiment, "resume") as command:
        code, said, info = command.ended(120)
        assert command.gone()
    assert (code, info["status"]) == (0, "done"), said
    assert_same(load(command.run), simulate(faulty({}, budget={"commits": 20})))


def test_a_cluster_whose_head_is_gone_ends_the_run_in_a_sentence(tmp_path):
    script = f"""
    from pathlib import Path
    from ray.cluster_utils import Cluster
    from worlds.faulty import FaultyTask, faulty
    from fedsim.runs.simulation import simulate
    cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 2}})
    began = time.monotonic()

    def on_event(kind, facts):
        if kind == "commit" and facts["version"] == 2:
            cluster.head_node.kill_gcs_server()
            print("killed", flush=True)

    executor = RayExecutor(workers=1, address=cluster.address)
    try:
        simulate(faulty({{}}, nap_s=0.2, budget={{"commits": 400}}), executor, out=Path({str(tmp_path)!r}) / "run",
                 on_event=on_event, report=False)
    except t.HostError as problem:
        print(problem.exit_code, str(problem).splitlines()[0], flush=True)
    executor.close()
    print("closed", flush=True)
    """
    with python(script) as (process, _):
        said, _ = process.communicate(timeout=200)
    lines = said.splitlines()
    assert lines[0] == "killed"
    assert lines[1].startswith("3 ray: its head has not answered for 2")
    assert lines[2] == "closed"
    assert load(tmp_path / "run").info.status == "failed"
