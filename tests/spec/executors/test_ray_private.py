"""What we take from Ray that it does not promise: private names, and its words for a lost worker."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from fedsim.executors import ray_session as session
from fedsim.executors.ray_errors import CAUSES, CRASHED, LOST, cause_of, lost
from fedsim.executors.ray_patches import SERVICES, few_processes, loopback, missing_names, read_auth_mode

session.quiet_environment()
ray = pytest.importorskip("ray")

MEMORY, NODE, REACH = (cause.words for cause in CAUSES)


def died(text):
    """The error of an actor that died, as Ray builds it from what its servers say."""
    from ray.core.generated.common_pb2 import ActorDiedErrorContext

    return ray.exceptions.ActorDiedError(ActorDiedErrorContext(error_message=text, actor_id=b"1" * 16))


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
        (lambda e: e.ObjectLostError("1" * 56, None, ""), CRASHED),
        (lambda e: e.OwnerDiedError("1" * 56, None, ""), CRASHED),
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
    assert len(missing_names(other)) == 2 + len(SERVICES)
    with loopback(other), few_processes(other):
        read_auth_mode(other)
