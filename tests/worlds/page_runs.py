"""Pages are played: their files are written, their commands and blocks of Python run, from the top to the end."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from contextlib import contextmanager, redirect_stdout
from pathlib import Path

import fedsim
from fedsim.cli.app import call
from fedsim.files import yaml_file
from worlds.pages import Block, blocks, commands, lines_of

PLAYED = ("docs/quickstart.md", "docs/how_to/tables.md")
"""Pages that the default suite plays."""
PLAYED_SLOWLY = {
    "README.md": ("budget={commits: 1}", "evaluate.windows=8", "local.steps=1", "runtime.executor=inline"),
    "docs/callbacks.md": (),
    "docs/long_runs.md": (),
    "docs/resume.md": (),
    "docs/statistics.md": (),
    "docs/how_to/continue.md": (),
    "docs/how_to/editor.md": (),
    "docs/how_to/million_clients.md": (),
    "docs/how_to/own_devices.md": (),
    "docs/how_to/own_images.md": (),
    "docs/how_to/own_model.md": (),
    "docs/how_to/own_text.md": (),
}
"""Pages that `make slow` plays, and the settings that make their runs small."""
ELSEWHERE = {
    "docs/extending.md": "tests/runs/test_extending.py",
    "docs/torch.md": "tests/runs/test_torch_runs.py",
}
"""Pages that are run by a test of their own."""
_HOURS = {"": "hours of training; its results are kept beside it, and the slow suite has its commands read"}
_EXPERIMENTS = (
    "availability",
    "cifar10",
    "depth",
    "devices",
    "fedgen_edge",
    "fidelity",
    "images",
    "instructions",
    "ptb",
    "published",
    "rules",
    "slow",
)
NOT_PLAYED: dict[str, dict[str, str]] = {
    "CONTRIBUTING.md": {"": "is what CI does itself"},
    "README.md": {
        "make demo": "installs into .venv; the demo itself is in tests/spec/cli",
        "pip install": "installs",
        "fedsim new my": "would write over the file that the page shows: tests/runs/test_new.py",
        "fedsim run my.yaml --address": "needs a cluster: tests/slow/test_cluster_runs.py",
        "fedsim resume": "of a run that was killed: docs/how_to/continue.md has a whole example",
        "fedsim compare": "of two runs of hours: tests/runs/test_compare.py",
        "import fedsim": "trains for twelve virtual hours: docs/how_to/tables.md has the same, small",
        "fedsim demo --images": "minutes: tests/spec/cli has it, small",
    },
    "benchmarks/README.md": {"": "measures for an hour: tests/runs/test_benchmarks.py has it, small"},
    "benchmarks/devices/README.md": {"": "writes tables of the package"},
    "benchmarks/fidelity/README.md": {"": "measures real transfers: tests/slow/test_real_transfers.py"},
    "docs/cluster.md": {"": "needs clusters: tests/slow/test_cluster_runs.py, tests/runs/test_deploy.py"},
    "docs/devices.md": {"": "measures this machine for a minute: tests/spec/runs/test_calibrate.py"},
    "docs/how_to/editor.md": {"fedsim --install-completion": "writes into the files of a shell"},
    "docs/how_to/gpu.md": {"": "needs a GPU: tests/gpu"},
    "docs/how_to/million_clients.md": {
        "fedsim run million.yaml --timeline-only --out runs/million": "minutes: python -m benchmarks engine",
    },
    "docs/json.md": {"": "of a run of hours: tests/spec/cli/test_json.py"},
    "docs/quantised.md": {"": "converts a model of megabytes: tests/runs/test_quantised_runs.py"},
    "docs/resume.md": {"class Drawing": "shows two methods of a class"},
    "docs/sources.md": {"": "fetches from package registries"},
    "docs/site/front.md": {"": "installs; the demo takes minutes, and is in tests/spec/cli"},
    "docs/sweeps.md": {"": "of a grid of hours: tests/spec/runs/test_sweep_contract.py holds every sentence"},
    "docs/trackers.md": {"": "needs the packages of the extras: tests/spec/trackers/test_trackers.py"},
    **{f"experiments/{name}/README.md": _HOURS for name in _EXPERIMENTS},
}
"""What is shown and not played, and why: page, what the command or block begins with (nothing: all of the page), reason."""
_SMALL = """
population: {preset: mixed_edge_2026, clients: 20}
task: {kind: quadratic, charge_as: {preset: gemma-3-270m, tokens_per_visit: 5000}}
local: {optimizer: sgd, lr: 0.1, steps: 4}
protocol: {kind: buffered, concurrency: 6, buffer: 3}
budget: {commits: 10}
runtime: {executor: inline}
"""
_TEXT = """
population: {preset: mixed_edge_2026, clients: 8}
task: {kind: language, sequence: 16}
local: {steps: 1, batch: 1}
protocol: {kind: synchronous, cohort: 2}
budget: {commits: 1}
evaluate: {every_commits: 1, windows: 4}
runtime: {executor: inline}
"""
ASSUMED: dict[str, dict[str, str]] = {
    "docs/callbacks.md": {"median.yaml": _SMALL},
    "docs/long_runs.md": {
        "my.yaml": _SMALL,
        "runs/my": _SMALL,
        "grid.yaml": f"{_SMALL}sweep: {{seed: [0, 1]}}\n",
    },
    "docs/resume.md": {"my.yaml": _SMALL, "runs/my": _SMALL},
    "docs/statistics.md": {
        f"runs/{name}-{seed}": f"{_TEXT}name: {name}\nseed: {seed}\n"
        for name in ("sync", "fedbuff")
        for seed in range(5)
    },
}
"""Files and run folders that a page takes as given, and the experiments that they come of."""


def units(page: str) -> list[tuple[Block, str]]:
    """The commands and blocks of Python of a page that are to be run: each with its block."""
    found = []
    for block in blocks(page):
        if block.language == "console":
            found += [(block, line) for line in lines_of(block)]
        elif block.language == "python" and (not block.name or page not in (*PLAYED, *PLAYED_SLOWLY)):
            found.append((block, block.text))
    return found


def excuse(page: str, unit: str) -> tuple[str, str] | None:
    """The entry of `NOT_PLAYED` that a command or block falls under: page and beginning."""
    return next(((page, begin) for begin in NOT_PLAYED.get(page, ()) if unit.startswith(begin)), None)


@contextmanager
def importable(folder: Path):
    """Modules of a folder can be imported; afterwards nobody knows them."""
    path, before = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path[:] = path
        for name in set(sys.modules) - before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(f"{folder}/"):
                del sys.modules[name]


def play(page: str, folder: Path) -> dict[str, object]:
    """Run a page in a folder, which is the working folder; returns what its blocks of Python have named.

    Raises:
        AssertionError: a command ended with another exit code than 0.
    """
    names: dict[str, object] = {}
    for name, text in ASSUMED.get(page, {}).items():
        if name.endswith(".yaml"):
            (folder / name).write_text(text, encoding="utf-8")
        else:
            fedsim.simulate(yaml_file.scalar(text, name), out=folder / name)
    with importable(folder):
        for block in blocks(page):
            if block.name:
                (folder / block.name).write_text(block.text, encoding="utf-8")
                if 'if __name__ == "__main__":' in block.text:
                    runpy.run_path(str(folder / block.name), run_name="__main__")
            elif block.language == "python" and excuse(page, block.text) is None:
                exec(compile(block.text, str(block), "exec"), names)
            elif block.language == "console":
                for line in lines_of(block):
                    if excuse(page, line) is None:
                        _type(line, folder, PLAYED_SLOWLY.get(page, ()))
    return names


def _type(line: str, folder: Path, smaller: tuple[str, ...]) -> None:
    into = re.search(r" > (\S+)$", line.partition(" #")[0].rstrip())
    for words in commands(line):
        assert words[0] == "fedsim", f"only fedsim is run: {shlex.join(words)}"
        args = words[1:]
        if args[0] in ("run", "sweep"):
            args += [word for setting in smaller for word in ("-s", setting)]
        if into is None:
            assert call(args) == 0, line
            continue
        with (folder / into[1]).open("w", encoding="utf-8") as file, redirect_stdout(file):
            assert call(args) == 0, line
