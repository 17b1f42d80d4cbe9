"""Clusters without one: the survey of a machine, versions compared, parcels, the store of a node, what Ray says of a token."""

from __future__ import annotations

import dataclasses
import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
from worlds import executor_worlds

import fedsim
from fedsim.errors import HostError
from fedsim.executors import ray_cluster
from fedsim.executors import ray_session as session
from fedsim.executors.cluster import nodes, store
from fedsim.executors.cluster import survey as surveys
from fedsim.executors.cluster.agreement import check_alike, disagreement, processors_of
from fedsim.executors.cluster.depot import Depot, Shipment, own_copy
from fedsim.executors.cluster.parcel import PIECE_BYTES, Entry, parcel_of
from fedsim.executors.cluster.store import stored
from fedsim.executors.cluster.survey import ABSENT, Machine, survey
from fedsim.executors.inline import Inline
from fedsim.records.info import RunInfo
from fedsim.runs.finish import MIXED, on_processors

# what a machine is ------------------------------------------------------------------------------


def test_a_machine_knows_its_packages_and_where_its_fedsim_lies():
    import torch

    here = survey()

    assert here.packages["torch"] == torch.__version__
    assert here.packages["fedsim"] == fedsim.__version__
    assert here.packages["python"] == ".".join(map(str, sys.version_info[:3]))
    assert ABSENT not in here.packages.values()
    assert Path(here.folder) == Path(fedsim.__file__).parent
    assert here.processor


def test_the_instruction_set_is_the_one_that_torch_chooses_by():
    import torch

    assert survey().instructions == torch.backends.cpu.get_cpu_capability()


@pytest.mark.parametrize(
    ("flags", "asked", "chosen"),
    [
        (surveys.WIDE | {"avx2"}, None, "AVX512"),
        (surveys.WIDE | {"avx2"}, "avx2", "AVX2"),
        (surveys.WIDE | {"avx2"}, "default", "DEFAULT"),
        ({"avx2", "fma"}, "avx512", "AVX2"),
        ({"avx2"}, None, "DEFAULT"),
        (surveys.WIDE - {"avx512vl"} | {"avx2"}, None, "AVX2"),
        (set(), None, "unknown"),
    ],
)
def test_flags_decide_and_a_variable_may_ask_for_less(flags, asked, chosen, monkeypatch):
    monkeypatch.setattr(surveys.platform, "machine", lambda: "x86_64")
    monkeypatch.delenv("ATEN_CPU_CAPABILITY", raising=False)
    if asked is not None:
        monkeypatch.setenv("ATEN_CPU_CAPABILITY", asked)

    assert surveys.instructions(frozenset(flags)) == chosen


def test_another_byte_or_another_name_in_fedsim_is_another_source(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "b.py").write_text("y = 2\n")
    digests = [surveys.source_digest(tmp_path)]
    (tmp_path / "inner" / "b.py").write_text("y = 3\n")
    digests.append(surveys.source_digest(tmp_path))
    (tmp_path / "inner" / "b.py").rename(tmp_path / "inner" / "c.py")
    digests.append(surveys.source_digest(tmp_path))
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "a.pyc").write_bytes(b"0")
    (tmp_path / ".a.py.swp").write_bytes(b"0")

    assert len(set(digests)) == 3
    assert surveys.source_digest(tmp_path) == digests[-1]


def test_the_survey_travels_to_where_fedsim_is_not():
    """By value: a node without fedsim still says what it has."""
    session.quiet_environment()
    ray = pytest.importorskip("ray")
    with nodes._by_value(ray):
        sent = ray.cloudpickle.dumps(surveys.facts)
    script = """
        import pickle, sys
        sys.modules["fedsim"] = None  # importing it fails
        found = pickle.loads(sys.stdin.buffer.read())()
        print(found["packages"]["fedsim"], found["packages"]["numpy"], repr(found["source"]))
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, input=sent, capture_output=True, check=True)

    assert done.stdout.decode().split() == [ABSENT, survey().packages["numpy"], "''"]
    assert pickle.loads(ray.cloudpickle.dumps(surveys.facts)) is surveys.facts  # by name again


# versions ---------------------------------------------------------------------------------------

OURS = Machine(
    "login-1",
    {"python": "3.11.9", "fedsim": "0.3.0", "torch": "2.13.0"},
    "a" * 64,
    "/opt/fedsim",
    "X 1",
    "AVX512",
)


def other(**changes):
    packages = {**OURS.packages, **changes.pop("packages", {})}
    return dataclasses.replace(OURS, host="gpu-7", packages=packages, **changes)


@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        (other(), None),
        (other(processor="Y 2", instructions="AVX2", folder="/home/fedsim"), None),
        (other(packages={"torch": "2.13.0+cu128", "python": "3.11.2"}), None),
        (
            other(packages={"torch": "2.12.1"}),
            "node gpu-7: torch is 2.12.1 there and 2.13.0 on the driver's login-1",
        ),
        (
            other(packages={"python": "3.12.1"}),
            "node gpu-7: python is 3.12.1 there and 3.11.9 on the driver's login-1",
        ),
        (
            other(packages={"fedsim": ABSENT}, source="", folder=""),
            "node gpu-7: fedsim is not installed there, the driver on login-1 has 0.3.0",
        ),
        (
            other(source="b" * 64),
            (
                f"node gpu-7: fedsim 0.3.0 has other files there ({'b' * 12} in /opt/fedsim) "
                f"than on the driver's login-1 ({'a' * 12} in /opt/fedsim)"
            ),
        ),
    ],
)
def test_a_node_with_other_software_is_named_with_both_versions(theirs, sentence):
    found = disagreement(OURS, theirs)

    assert (found and found.headline) == sentence


def test_all_nodes_that_differ_are_named_at_once():
    strangers = [dataclasses.replace(other(packages={"torch": "2.12.1"}), host=f"n{i}") for i in range(3)]
    check_alike(OURS, [other(), OURS])
    with pytest.raises(HostError) as caught:
        check_alike(OURS, [OURS, *strangers])

    assert [f"node n{i}: torch is 2.12.1" in str(caught.value) for i in range(3)] == [True] * 3
    assert str(caught.value).count("fix:") == 1
    assert caught.value.exit_code == 3


def test_processors_are_counted_and_a_word_says_that_they_differ():
    machines = [OURS, other(), other(processor="Y 2", instructions="AVX2")]
    info = RunInfo("a", "running", 0, "")

    assert processors_of(machines) == {"X 1, AVX512": 2, "Y 2, AVX2": 1}
    for nodes_, word in ((machines, MIXED), (machines[:2], "")):
        executor = Inline()
        executor.processors = partial(processors_of, nodes_)
        assert on_processors(info, executor).mixed == word
    assert on_processors(info, None).processors == {}
    assert list(Inline().processors().values()) == [1]


# parcels ----------------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(os.urandom(3000))
    (folder / "pytorch_model.bin").write_bytes(b"the same in another format")
    (folder / "inner" / "vocab.txt").write_text("a\nb\n")
    (folder / "inner" / "only.bin").write_bytes(b"no safetensors beside it")
    (folder / ".hidden").write_text("?")
    (folder / "empty.txt").touch()
    blob = tmp_path / "blob"
    blob.write_bytes(b"linked")
    (folder / "link.json").symlink_to(blob)
    (folder / "elsewhere").symlink_to(tmp_path)
    return folder


def pieces(parcel, entry):
    """What a depot gives, with its own reading."""
    depot = pickle.loads(pickle.dumps(Depot([parcel])))
    for offset, size in entry.pieces():
        yield memoryview(depot.read(parcel.digest, entry.place, offset, size))


def test_a_parcel_is_what_a_model_is_made_of(model):
    parcel = parcel_of(str(model), model)

    assert [entry.place for entry in parcel.entries] == [
        "config.json", "empty.txt", "inner/only.bin", "inner/vocab.txt", "link.json", "model.safetensors",
    ]  # fmt: skip
    assert parcel.total_bytes == sum((model / entry.place).stat().st_size for entry in parcel.entries)


def test_equal_content_has_one_digest_wherever_it_lies(model, tmp_path):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(model, copy, symlinks=True)
    before = parcel_of("a", model).digest

    assert parcel_of("b", copy).digest == before
    (copy / "config.json").write_text("[]")
    assert parcel_of("b", copy).digest != before


@pytest.mark.parametrize("size", [0, 1, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES])
def test_pieces_cover_a_file_once(size):
    parts = list(Entry("a", size, "").pieces())

    assert sum(length for _, length in parts) == size
    assert [offset for offset, _ in parts] == [sum(n for _, n in parts[:i]) for i in range(len(parts))]
    assert all(0 < length <= PIECE_BYTES for _, length in parts)


@pytest.mark.parametrize("place", ["../a", "/etc/passwd", "a/../../b", "", "..", "a\\b", "C:/a", "a\0b"])
def test_a_name_cannot_leave_its_folder(place):
    with pytest.raises(HostError, match="would leave its folder"):
        Entry(place, 1, "")


@pytest.mark.parametrize(("name", "said"), [("absent", "cannot be read"), ("empty", "nothing to send")])
def test_what_cannot_be_sent_is_said(tmp_path, name, said):
    (tmp_path / "empty").mkdir()
    with pytest.raises(HostError, match=said):
        parcel_of(name, tmp_path / name)


# the store of a node ----------------------------------------------------------------------------


class Counted:
    """Gives pieces, and counts the files that were asked for."""

    def __init__(self, change=None):
        self.files, self.change = [], change

    def __call__(self, parcel, entry):
        self.files.append(entry.place)
        for piece in pieces(parcel, entry):
            yield piece if self.change is None else self.change(bytes(piece))


def test_what_was_fetched_is_what_was_sent_and_is_fetched_once(model, tmp_path):
    parcel, fetch = parcel_of(str(model), model), Counted()
    place = stored(parcel, fetch, "run 1", tmp_path / "cache")

    assert {p.relative_to(place).as_posix(): p.read_bytes() for p in place.rglob("*") if p.is_file()} == {
        entry.place: (model / entry.place).read_bytes() for entry in parcel.entries
    }
    assert parcel_of("x", place).digest == parcel.digest
    assert stored(parcel, fetch, "run 1", tmp_path / "cache") == place
    assert stored(parcel, fetch, "run 2", tmp_path / "cache") == place
    assert len(fetch.files) == len(parcel.entries)


def test_a_single_file_keeps_its_name(model, tmp_path):
    parcel = parcel_of("weights", model / "model.safetensors")
    place = stored(parcel, Counted(), "run", tmp_path / "cache")

    assert place.name == "model.safetensors"
    assert place.read_bytes() == (model / "model.safetensors").read_bytes()


def test_a_large_file_travels_in_pieces(tmp_path):
    large = tmp_path / "large.safetensors"
    large.write_bytes(os.urandom(1 << 20) * 33)
    parcel = parcel_of("large", large)
    lengths = [len(piece) for piece in pieces(parcel, parcel.entries[0])]

    assert lengths == [PIECE_BYTES, PIECE_BYTES, 1 << 20]
    assert stored(parcel, Counted(), "run", tmp_path / "cache").read_bytes() == large.read_bytes()


def test_damage_in_the_store_is_found_once_a_run_and_mended(model, tmp_path):
    parcel, fetch = parcel_of(str(model), model), Counted()
    place = stored(parcel, fetch, "run 1", tmp_path / "cache")
    whole = (place / "config.json").read_bytes()
    (place / "config.json").write_bytes(b"[]")
    stored(parcel, fetch, "run 1", tmp_path / "cache")
    assert (place / "config.json").read_bytes() == b"[]"  # this run has looked already
    stored(parcel, fetch, "run 2", tmp_path / "cache")

    assert (place / "config.json").read_bytes() == whole
    assert len(fetch.files) == 2 * len(parcel.entries)


def test_a_file_that_changes_on_the_way_is_refused_and_nothing_is_left(model, tmp_path):
    parcel = parcel_of(str(model), model)
    with pytest.raises(HostError, match=r"config.json is not what it was"):
        stored(parcel, Counted(lambda piece: piece[::-1] + b"!"), "run", tmp_path / "cache")

    assert [p for p in (tmp_path / "cache").iterdir() if p.is_dir()] == []
    assert stored(parcel, Counted(), "run", tmp_path / "cache").is_dir()


def test_what_a_killed_process_left_is_swept_away(model, tmp_path):
    parcel, cache = parcel_of(str(model), model), tmp_path / "cache"
    left = cache / f".{parcel.digest}.host.1"
    left.mkdir(parents=True)
    (left / "config.json").write_text("half")
    place = stored(parcel, Counted(), "run", cache)

    assert [p for p in cache.iterdir() if p.is_dir()] == [place]


def test_a_disk_that_is_too_small_is_said_with_figures(model, tmp_path, monkeypatch):
    parcel = parcel_of(str(model), model)
    monkeypatch.setattr(store.shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(HostError, match=rf"{parcel.total_bytes:,} bytes do not fit.*1,000 free"):
        stored(parcel, Counted(), "run", tmp_path / "cache")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_said(model, tmp_path):
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(HostError, match="cannot be kept in"):
        stored(parcel_of("m", model), Counted(), "run", tmp_path / "cache" / "inner")


def test_a_folder_that_is_a_file_is_said(model, tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(HostError, match="cannot be kept in"):
        stored(parcel_of("m", model), Counted(), "run", tmp_path / "cache")


def _slowly(parcel, cache, log):
    def fetch(parcel, entry):
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")
        yield from pieces(parcel, entry)

    stored(parcel, fetch, "run", Path(cache))


def test_processes_of_one_machine_fetch_once_between_them(model, tmp_path):
    parcel, log = parcel_of(str(model), model), tmp_path / "log"
    fork = multiprocessing.get_context("fork")
    crowd = [fork.Process(target=_slowly, args=(parcel, tmp_path / "cache", log)) for _ in range(4)]
    for process in crowd:
        process.start()
    for process in crowd:
        process.join(timeout=60)

    assert [process.exitcode for process in crowd] == [0] * 4
    assert len(log.read_text().split()) == len(parcel.entries)
    assert len(set(log.read_text().split())) == 1


# the task on another machine --------------------------------------------------------------------


def test_what_ships_with_fedsim_is_read_from_the_node_s_own():
    assert own_copy("/a/fedsim/builtin/model", "/a/fedsim", Path("/b/fedsim")) == "/b/fedsim/builtin/model"
    assert own_copy("/a/fedsim2/model", "/a/fedsim", Path("/b/fedsim")) == "/a/fedsim2/model"
    assert own_copy("gpt2", "", Path("/b/fedsim")) == "gpt2"


def test_a_task_that_names_no_files_cannot_be_shipped():
    fleet = nodes.Fleet.__new__(nodes.Fleet)
    fleet._ship, fleet._depot, fleet._driver, fleet._run = ("data",), None, OURS, "run"
    with pytest.raises(HostError, match="does not say which files its workers read"):
        fleet.shipment(executor_worlds.quadratic())
    fleet._ship = ()
    assert fleet.shipment(executor_worlds.quadratic()) == Shipment(OURS, "run", {})


def test_a_node_that_joins_later_is_compared_too():
    shipment = Shipment(OURS, "run", {})
    shipment.check(other())
    with pytest.raises(HostError, match=r"torch is 2\.12\.1 there"):
        shipment.check(other(packages={"torch": "2.12.1"}))


# room -------------------------------------------------------------------------------------------


class Cluster:
    """A Ray with nodes of some CPUs and GPUs, of which some are free."""

    def __init__(self, nodes, free):
        self._nodes, self._free = nodes, free

    def nodes(self):
        return [{"Alive": True, "Resources": {"memory": 64e9, **node}} for node in self._nodes]

    def available_resources(self):
        return self._free


def allowed(nodes, free, workers, gpus=0.0):
    return session.allowed(Cluster(nodes, free), session.Needs(workers, gpus, 0, 0), shared=True)


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(session, "SETTLE_S", 0.0)
    monkeypatch.setattr(session, "FREE_S", 0.0)


@pytest.mark.parametrize(
    ("nodes", "free", "workers", "gpus", "fit"),
    [
        ([{"CPU": 4}, {"CPU": 2}], {"CPU": 6}, "auto", 0.0, 6),
        ([{"CPU": 4}, {"CPU": 2}], {"CPU": 5}, "auto", 0.0, 5),
        ([{"CPU": 4}, {"CPU": 2}], {"CPU": 3}, 3, 0.0, 3),
        ([{"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 1}], {"CPU": 16, "GPU": 2}, "auto", 0.25, 8),
        ([{"CPU": 8, "GPU": 1}, {"CPU": 8, "GPU": 1}], {"CPU": 16, "GPU": 1.5}, "auto", 0.25, 6),
        ([{"CPU": 8, "GPU": 1}, {"CPU": 1, "GPU": 1}], {"CPU": 9, "GPU": 2}, "auto", 0.25, 5),
    ],
)
def test_workers_are_those_that_have_room_now(impatient, nodes, free, workers, gpus, fit):
    assert allowed(nodes, free, workers, gpus)[0] == fit


@pytest.mark.parametrize(
    ("nodes", "free", "workers", "gpus", "sentence"),
    [
        ([{"CPU": 4}, {"CPU": 2}], {"CPU": 6}, 7, 0.0, "Ray has 6 CPUs on 2 nodes, one a worker (got 7)"),
        (
            [{"CPU": 4}, {"CPU": 2}],
            {"CPU": 1},
            4,
            0.0,
            "1 of the 6 places on 2 nodes are free, others hold the rest (got 4)",
        ),
        (
            [{"CPU": 4}],
            {},
            "auto",
            0.0,
            "0 of the 4 places on 1 nodes are free, others hold the rest (got 'auto')",
        ),
        ([{"CPU": 0}], {}, 1, 0.0, "Ray has 0 CPUs on 1 nodes, one a worker (got 1)"),
        (
            [{"CPU": 8, "GPU": 1}],
            {"CPU": 8, "GPU": 1},
            5,
            0.25,
            "5 workers with 0.25 GPU each do not fit: Ray has 1 GPUs",
        ),
    ],
)
def test_workers_without_room_are_refused_in_numbers(impatient, nodes, free, workers, gpus, sentence):
    with pytest.raises(HostError) as caught:
        allowed(nodes, free, workers, gpus)

    assert sentence in str(caught.value)
    assert "fix:" in str(caught.value)


def test_room_that_comes_back_is_waited_for(monkeypatch):
    ray = Cluster([{"CPU": 2}], {"CPU": 0})
    monkeypatch.setattr(nodes.time, "sleep", lambda _s: ray._free.update(CPU=2))

    assert nodes.wait_for_room(ray, 2, 0.0, 60.0) == 2


# addresses and tokens ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "environment", "where", "fix"),
    [
        ("ray://10.0.0.1:10001", None, "runtime.address", "ray job submit --address http://HEAD:8265"),
        ("http://10.0.0.1:8265", None, "runtime.address", "ray job submit --address http://10.0.0.1:8265"),
        ("auto", "http://10.0.0.1:8265", "RAY_ADDRESS", "ray job submit --address http://10.0.0.1:8265"),
    ],
)
def test_a_url_is_answered_with_the_way_into_the_cluster(address, environment, where, fix, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if environment is not None:
        monkeypatch.setenv("RAY_ADDRESS", environment)
    with pytest.raises(HostError) as caught:
        ray_cluster.join(None, address)

    assert str(caught.value).startswith(f"{where}: ")
    assert fix in str(caught.value)


DISABLED = "InvalidAuthToken: Authentication token is missing or incorrect"
NONE = "ray.exceptions.AuthenticationError: Token authentication is enabled but no authentication token was found. Ensure"
MISMATCH = "RuntimeError: Version mismatch: The cluster was started with:\n    Ray: 2.60.0\n    Python: 3.11.9\nThis process\n    Ray: 2.59.0\n    Python: 3.11.9"


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"disabled": DISABLED, "token": NONE}, "wants a token, and this process has none"),
        ({"disabled": DISABLED, "token": DISABLED}, "does not take this process's token"),
        ({"token": NONE}, "wants a token, and this process has none"),
        ({"token": DISABLED}, "does not take this process's token"),
        (
            {"disabled": MISMATCH, "token": NONE},
            "another Ray or Python (Ray: 2.60.0, Python: 3.11.9, Ray: 2.59.0",
        ),
        (
            {"disabled": "ConnectionError: nobody", "token": NONE},
            "no Ray cluster answers there (ConnectionError: nobody)",
        ),
    ],
)
def test_what_two_tries_say_becomes_one_sentence(said, words):
    assert words in str(ray_cluster._not_joined("h:1", ray_cluster._telling(said)))


@pytest.mark.parametrize(
    ("code", "patience_s"),
    [
        ("import time; time.sleep(60)", ray_cluster.JOIN_S),
        ("import time; print('in', flush=True); time.sleep(60)", ray_cluster.SERVE_S),
    ],
)
def test_a_driver_that_got_in_is_waited_for_longer(code, patience_s):
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        give_up_s = time.monotonic() + 20
        while ray_cluster._patience_s([process]) != patience_s and time.monotonic() < give_up_s:
            time.sleep(0.05)
        assert ray_cluster._patience_s([process]) == patience_s
        process.kill()


@pytest.mark.parametrize("phrase", [*ray_cluster.NO_TOKEN, *ray_cluster.WRONG_TOKEN])
def test_ray_still_has_the_words_for_a_token(phrase):
    import importlib.util

    folder = Path(importlib.util.find_spec("ray").origin).parent
    places = [folder / "_raylet.so", folder / "_private" / "authentication" / "authentication_constants.py"]

    assert any(phrase.encode() in place.read_bytes().lower() for place in places)


def test_a_digest_names_content_alone(model):
    parcel = parcel_of(str(model), model)
    lines = "".join(
        f"{e.place}\t{e.size}\t{hashlib.sha256((model / e.place).read_bytes()).hexdigest()}\n"
        for e in parcel.entries
    )

    assert parcel.digest == hashlib.sha256(lines.encode()).hexdigest()
