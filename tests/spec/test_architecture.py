"""Who may import what: the layers of the design, read off the source."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from worlds.rooms import FLOOR, LIBRARIES, edges, files, libraries, named, place, room
from worlds.rooms import ROOT as SOURCE

import fedsim
import hetero_profiles

ROOT = Path(fedsim.__file__).parent
DATA = Path(hetero_profiles.__file__).parent


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_in_its_own_rooms_only(library):
    users = [path for path in files() if library in libraries(path)]
    places = {place(path, LIBRARIES[library]) or named(path) for path in users}

    assert places == LIBRARIES[library]


def test_the_two_times_meet_where_values_are_read_and_after_the_run():
    meeting = ("server/values/", "server/after/")
    below = {named(a) for a, b in edges() if room(b) == "executors" and FLOOR["runs"] < FLOOR[room(a)]}
    outside = {name for name in below if room(SOURCE / name) != "executors" and not name.startswith(meeting)}

    assert outside == set()
    assert not [named(p) for p in files() if named(p).startswith(meeting) and "simpy" in libraries(p)]


def test_the_data_package_needs_nothing_but_the_standard_library():
    names = set().union(*(libraries(p) for p in DATA.rglob("*.py")))

    assert names <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("fedsim", {"torch", "ray", "transformers", "pandas", "simpy", "pydantic"}),
        (
            "fedsim.cli.app",
            {"torch", "ray", "transformers", "pandas", "sklearn", "plotly", "pydantic", "pydantic_core"},
        ),
        ("fedsim.config.experiment", {"torch", "ray", "transformers", "pandas", "sklearn"}),
        ("fedsim.server.server", {"torch", "ray", "transformers", "pandas", "sklearn"}),
    ],
)
def test_importing_stays_light(module, heavy):
    code = f"import sys, {module}; print(*(sys.modules.keys() & {heavy!r}))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd="/")

    assert found.stdout.split() == []


def test_the_source_never_seeds_globally_nor_unpickles_from_disk():
    banned = (
        "np.random.seed",
        "random.seed(",
        "torch.manual_seed",
        "pickle.load(",
        "torch.load(",
        "weights_only=False",
    )
    hits = [
        f"{path.name}: {word}"
        for path in ROOT.rglob("*.py")
        for word in banned
        if word in path.read_text(encoding="utf-8")
    ]

    assert hits == []


def test_public_names_are_these():
    assert fedsim.__all__ == [
        "NOTHING", "WHOLE", "Aggregator", "Callback", "Component", "Contribution", "Executor", "Experiment", "FedsimError",
        "Invitation", "Job", "Offer", "Payload", "Personal", "PollingSampler", "Pool", "Run", "Sampler", "Seen", "ServerModel",
        "ServerOptimizer", "ServerProtocol", "Steps", "Task", "TaskComponent", "TaskContext", "TorchTask", "Traits", "Update",
        "Verbs", "load", "plots", "read", "resume", "simulate", "views",
    ]  # fmt: skip


@pytest.mark.parametrize("name", fedsim.__all__)
def test_a_public_name_is_what_it_says_and_listed(name):
    public = getattr(fedsim, name)

    assert public.__name__ == name if isinstance(public, type) else public is not None
    assert name in dir(fedsim)


@pytest.mark.parametrize(
    "line",
    [
        "from fedsim.aggregators import WHOLE, Ask, Contribution, Offer, ServerModel, Traits",
        "from fedsim.component import Component",
        "from fedsim.server import Server",
        "from fedsim.seen import Counts, Seen",
        "from fedsim.samplers import Sampler",
        "from fedsim import report, views",
        "from fedsim.views import curve, headline, losses_by_cause, phase_seconds, uplink_reduction, wasted_work",
    ],
)
def test_paths_that_were_in_the_documents_before_the_rooms_still_lead_there(line):
    exec(line, {})


def test_another_name_is_none_of_ours():
    with pytest.raises(AttributeError, match="has no attribute 'Federation'"):
        _ = fedsim.Federation


def test_the_suite_tests_the_built_wheel_where_it_says_so():
    """`make test` sets FEDSIM_TEST_WHEEL: what is imported is then installed, not the source tree."""
    installed = any(ROOT.parent.glob("fedsim_edge-*.dist-info"))

    assert installed or not os.environ.get("FEDSIM_TEST_WHEEL")
    assert (ROOT / "report" / "page.html.j2").is_file()
    assert (ROOT / "builtin" / "model" / "model.safetensors").is_file()
