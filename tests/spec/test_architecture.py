"""Who may import what: the layers of the design, read off the source."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import fedsim
import hetero_profiles

ROOT = Path(fedsim.__file__).parent
DATA = Path(hetero_profiles.__file__).parent

ALLOWED = {
    "simpy": {"instants.py", "network/", "clock/", "server/", "protocols/", "runs/"},
    "ray": {"executors/ray.py", "executors/ray_worker.py"},
    "torch": {"training/", "tasks/", "cli/doctor.py"},
    "transformers": {"training/", "tasks/", "builtin/"},
    "peft": {"training/", "tasks/"},
}


def imported(path):
    """Top-level names of all imports of a file, those inside functions and TYPE_CHECKING too."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("library", ALLOWED)
def test_heavy_libraries_are_imported_in_their_own_layer_only(library):
    users = {p.relative_to(ROOT).as_posix() for p in ROOT.rglob("*.py") if library in imported(p)}

    strangers = {
        u for u in users if not any(u == a or (a.endswith("/") and u.startswith(a)) for a in ALLOWED[library])
    }
    assert strangers == set()


def test_the_data_package_needs_nothing_but_the_standard_library():
    names = set().union(*(imported(p) for p in DATA.rglob("*.py")))

    assert names <= set(sys.stdlib_module_names)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("fedsim", {"torch", "ray", "transformers", "pandas", "simpy", "pydantic"}),
        ("fedsim.cli.app", {"torch", "ray", "transformers", "pandas", "sklearn", "plotly"}),
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
    assert fedsim.__all__ == ["Experiment", "Run", "load", "read", "simulate"]
    for name in fedsim.__all__:
        assert getattr(fedsim, name) is not None
    assert callable(fedsim.simulate)


def test_the_suite_tests_the_built_wheel_where_it_says_so():
    """`make test` sets FEDSIM_TEST_WHEEL: what is imported is then installed, not the source tree."""
    installed = any(ROOT.parent.glob("fedsim_edge-*.dist-info"))

    assert installed or not os.environ.get("FEDSIM_TEST_WHEEL")
    assert (ROOT / "report" / "page.html.j2").is_file()
    assert (ROOT / "builtin" / "model" / "model.safetensors").is_file()
