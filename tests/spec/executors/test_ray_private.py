"""What we take from Ray that it does not promise: private names, and its words for a lost worker."""

import os
import pickle
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from worlds.executor_worlds import LOCAL

from fedsim.errors import HostError
from fedsim.executors import ray_session as session
from fedsim.executors.pool import WorkerLost
from fedsim.executors.ray_errors import CAUSES, CRASHED, LOST, cause_of, lost, trouble
from fedsim.executors.ray_patches import (
    AGENT_FLAGS,
    IDLE,
    PORTS,
    SERVICES,
    few_processes,
    loopback,
    missing_names,
    no_agents,
    read_auth_mode,
)
from fedsim.executors.ray_pool import RayPool
from fedsim.executors.ray_worker import Shared
from fedsim.jobs import Job

session.quiet_environment()
ray = pytest.importorskip("ray")

MEMORY, NODE, REACH, OBJECT = (cause.words for cause in CAUSES)


def died(text):
    """The error of an actor that died, as Ray builds it from what its servers say."""
    from ray.core.generated.common_pb2 import ActorDiedErrorContext

    return ray.exceptions.ActorDiedError(ActorDiedErrorContext(error_message=text, actor_id=b"1" * 16))


def raised_in_a_worker(problem):
    """The error of a call in which Ray itself raised something."""
    trace = f"Traceback (most recent call last):\n  File x\n{type(problem).__name__}: {problem}"
    return ray.exceptions.RayTaskError("call", trace, problem, pid=1, ip="127.0.0.1").as_instanceof_cause()


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda e: e.OutOfMemoryError("Task was killed."), MEMORY),
        (lambda _: died("Worker killed due to the node running low on memory."), MEMORY),
        (lambda e: e.NodeDiedError("gone"), NODE),
        (lambda _: died("The actor died because its node has died. Node Id: 1"), NODE),
        (lambda _: died("The actor died because the node died: 1"), NODE),
        (lambda e: e.ActorUnavailableError("The connection is broken.", b"1" * 16), REACH),
        (lambda e: e.GetTimeoutError("not in time"), REACH),
        (lambda _: died("Worker unexpectedly exits with a connection error code 2."), CRASHED),
        (lambda e: e.RayActorError(), CRASHED),
        (lambda e: e.WorkerCrashedError(), CRASHED),
        (lambda e: e.ObjectLostError("1" * 56, None, ""), OBJECT),
        (lambda e: e.OwnerDiedError("1" * 56, None, ""), OBJECT),
        (lambda e: raised_in_a_worker(e.ObjectFreedError("1" * 56, None, "")), OBJECT),
    ],
)
def test_every_way_to_lose_a_worker_is_said_in_our_words(build, words):
    problem = build(ray.exceptions)
    assert isinstance(problem, lost(ray))
    assert cause_of(problem) == words


def test_an_error_of_the_work_itself_is_no_lost_worker():
    for problem in (ray.exceptions.RuntimeEnvSetupError("x"), ray.exceptions.ObjectStoreFullError("x")):
        assert not isinstance(problem, lost(ray))
    assert {name for cause in CAUSES for name in cause.kinds} <= set(vars(ray.exceptions))
    assert set(LOST) <= set(vars(ray.exceptions))


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda e: e.OutOfDiskError("Local disk is full"), "its shared memory is full, and so is the disk"),
        (lambda e: e.ObjectStoreFullError("x"), "its shared memory is full"),
        (lambda e: raised_in_a_worker(e.OutOfDiskError("full")), "its shared memory is full"),
        (
            lambda e: e.RuntimeEnvSetupError("no such package\nand more"),
            "a worker cannot do its work: Failed to",
        ),
    ],
)
def test_what_ray_cannot_do_is_one_sentence(build, said):
    error = trouble(build(ray.exceptions))

    assert isinstance(error, HostError)
    assert said in error.message.what
    assert "\n" not in error.message.what
    assert "runtime.executor=inline" in error.message.fix


class Store:
    """A Ray whose store loses what it is asked for."""

    def __init__(self):
        self.exceptions, self.held = ray.exceptions, []

    def remote(self, **_options):
        return lambda cls: cls

    def put(self, value):
        self.held.append(value)
        return f"ref {len(self.held)}"

    def get(self, ref, timeout):
        raise raised_in_a_worker(self.exceptions.ObjectLostError("1" * 56, None, ""))


def test_an_object_that_was_lost_is_put_there_again():
    store, task, vector = Store(), object(), np.zeros(3, np.float32)
    pool = RayPool(store, 0.0)
    pool.hold_task(task)
    shared, other = Shared(1, pool.put(vector), vector), Shared(2, pool.put(vector), vector)
    with pytest.raises(WorkerLost, match=OBJECT) as caught:
        pool.fetch("ref 9")

    assert caught.value.objects
    jobs = [Job(k, 0, shared, LOCAL, 0) for k in range(2)]
    pool.restore(jobs)
    assert (shared.ref, other.ref) == ("ref 5", "ref 3")
    assert store.held[3] is task
    assert store.held[4] is vector
    assert pickle.loads(pickle.dumps(shared)).vector is None  # the vector does not travel with its number


def test_the_processes_of_a_ray_of_our_own_are_watched():
    from fedsim.executors.faults.head import NEEDED
    from fedsim.executors.ray_patches import dead_processes

    constants = ray._private.ray_constants
    assert {constants.PROCESS_TYPE_GCS_SERVER, constants.PROCESS_TYPE_RAYLET} == NEEDED
    assert callable(ray._private.node.Node.dead_processes)
    ended = SimpleNamespace(dead_processes=lambda: [("raylet", object())])
    other = SimpleNamespace(_private=SimpleNamespace(worker=SimpleNamespace(_global_node=ended)))
    assert dead_processes(other) == ["raylet"]
    assert dead_processes(SimpleNamespace()) == []


@pytest.mark.parametrize("phrase", [phrase for cause in CAUSES for phrase in cause.phrases])
def test_ray_still_has_the_words_that_we_look_for(phrase):
    folder = Path(ray.__file__).parent / "core" / "src" / "ray"
    programs = [folder / "raylet" / "raylet", folder / "gcs" / "gcs_server"]
    assert any(phrase.encode() in program.read_bytes().lower() for program in programs)


def test_ray_still_has_the_private_names_that_we_change():
    assert missing_names(ray) == []


def test_what_is_changed_inside_ray_is_put_back(monkeypatch):
    import os

    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    constants, node = ray._private.ray_constants, ray._private.node.Node
    before = [constants.ENABLE_RAY_CLUSTER, *(vars(node)[name] for name in SERVICES)]
    with pytest.raises(KeyError), loopback(ray), few_processes(ray):
        assert constants.ENABLE_RAY_CLUSTER is False
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"
        assert [getattr(node, name)(None) for name in SERVICES] == [None] * len(SERVICES)
        raise KeyError
    assert before == [constants.ENABLE_RAY_CLUSTER, *(vars(node)[name] for name in SERVICES)]
    assert "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER" not in os.environ


def test_a_ray_without_these_names_is_named_and_starts_as_it_does_by_itself():
    other = SimpleNamespace(_private=SimpleNamespace(node=SimpleNamespace()))
    assert len(missing_names(other)) == 2 + len(SERVICES) + 3 + len(PORTS)
    with loopback(other), few_processes(other), no_agents(other):
        read_auth_mode(other)


def test_a_raylet_gets_shells_for_its_agents_and_is_told_that_nobody_listens():
    told, started = {}, []

    def start_raylet(session_dir, node_id, command):
        return other._private.services.start_ray_process(command, "raylet", fate_share=True)

    def persist_port(session_dir, node_id, name, port):
        told[name] = (session_dir, node_id, port)

    services = SimpleNamespace(
        start_raylet=start_raylet, start_ray_process=lambda *given, **more: started.append((given, more))
    )
    names = {name: name.lower() for name in PORTS}
    other = SimpleNamespace(
        _private=SimpleNamespace(services=services),
        _raylet=SimpleNamespace(persist_port=persist_port, **names),
    )
    before = dict(vars(services))
    with no_agents(other):
        other._private.services.start_raylet(
            "here",
            node_id="n",
            command=["raylet", "--head", *(f"{flag}python agent.py" for flag in AGENT_FLAGS)],
        )

    assert started == [
        ((["raylet", "--head", *(flag + IDLE for flag in AGENT_FLAGS)], "raylet"), {"fate_share": True})
    ]
    assert told == {name.lower(): ("here", "n", port) for name, port in PORTS.items()}
    assert vars(services) == before


# the folder for temporary files -----------------------------------------------------------------

LONG = "/scratch/jobs/" + "x" * 81
"""A TMPDIR of a batch system, 95 characters."""


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"TMPDIR": LONG}, LONG),
        ({"TMPDIR": LONG, "RAY_TMPDIR": "/short"}, "/short"),
    ],
)
def test_the_folder_is_the_one_that_ray_would_choose(environment, folder, monkeypatch):
    for name in ("TMPDIR", "RAY_TMPDIR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    assert session.temporary_folder() == folder


@pytest.mark.parametrize(("length", "long"), [(4, False), (39, False), (40, True), (95, True)])
def test_a_folder_is_too_long_where_its_sockets_would_be(length, long):
    assert session.too_long("/" + "x" * (length - 1)) is long


class Started:
    """A Ray that takes down how it is started, or refuses to."""

    def __init__(self, problem=None):
        self.problem, self.options = problem, None

    def init(self, **options):
        self.options = options
        if self.problem is not None:
            raise self.problem

    def shutdown(self):
        pass


@pytest.fixture
def bare(monkeypatch):
    """`start` without what it changes inside a real Ray, and without patience."""

    @contextmanager
    def nothing(*_args):
        yield

    for name in ("loopback", "few_processes", "no_agents"):
        monkeypatch.setattr(session, name, nothing)
    monkeypatch.setattr(session.time, "sleep", lambda _s: None)
    monkeypatch.delenv("RAY_TMPDIR", raising=False)


@pytest.mark.parametrize("tmpdir", [LONG, "/tmp"])
def test_a_ray_of_our_own_gets_a_short_folder_only_where_it_needs_one(bare, tmpdir, monkeypatch):
    monkeypatch.setenv("TMPDIR", tmpdir)
    ray = Started()
    session.start(ray, session.Needs(1, 0.0, 0, 0))

    given = ray.options.get("_temp_dir")
    assert (given is None) == (tmpdir == "/tmp")
    if given is not None:
        assert not session.too_long(given)
        assert Path(given).stat().st_uid == os.getuid()


def test_where_no_short_folder_can_be_made_the_way_out_is_a_variable(bare, monkeypatch, tmp_path):
    monkeypatch.setenv("TMPDIR", LONG)
    monkeypatch.setattr(session, "short_folder", lambda _parent: None)

    with pytest.raises(HostError, match=r"fix: set RAY_TMPDIR to a folder with a short name"):
        session.start(
            Started(RuntimeError("AF_UNIX path length cannot exceed 107 bytes")), session.Needs(1, 0.0, 0, 0)
        )


def test_a_short_folder_that_is_somebody_else_s_is_not_used(tmp_path):
    target = tmp_path / "elsewhere"
    target.mkdir()
    (tmp_path / f"fedsim-ray-{os.getuid()}").symlink_to(target)

    assert session.short_folder(tmp_path) is None
    assert session.short_folder(tmp_path / "absent") is None
