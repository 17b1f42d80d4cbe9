"""Nothing in the source runs what a file holds: no pickle, no eval, no shell, no code of a model; files are opened in one place."""

from __future__ import annotations

import ast
from functools import cache

import pytest
from worlds.rooms import files, named, syntax

OWN_BYTES = ("executors/packing.py", "executors/calls.py", "testing/tasks.py")
"""Where pickles of our own processes travel; none of them reads a file."""
RAYS = ("executors/ray_worker.py",)
"""Where Ray's pickle is used to answer Ray's own driver."""
MODULES = {
    "pickle": (*OWN_BYTES, "executors/ray_pool.py"),  # there for the name of an error
    "cloudpickle": RAYS,
    "subprocess": ("executors/ray_cluster.py", "cli/doctor.py", "runs/sweeps/children.py"),
    "zipfile": ("tasks/_images/features.py",),  # for the name of an error
    **dict.fromkeys(
        ("marshal", "shelve", "dill", "joblib", "dbm", "imp", "runpy", "code", "codeop", "pty", "sqlite3", "tarfile"), ()
    ),
    **dict.fromkeys(("xml", "xmlrpc", "webbrowser", "http", "urllib", "requests", "ctypes", "telnetlib", "ftplib"), ()),
}  # fmt: skip
"""Module -> files that may import it."""
CALLS = {
    "eval": (),
    "exec": (),
    "compile": (),
    "__import__": (),
    "os.system": (),
    "os.popen": (),
    "os.execv": (),
    "tempfile.mktemp": (),
    "yaml.load": (),
    "yaml.full_load": (),
    "yaml.unsafe_load": (),
    "torch.load": (),
    "torch.hub.load": (),
    "torch.jit.load": (),
    "pd.read_pickle": (),
    "pickle.load": (),
    "pickle.Unpickler": (),
    "pickle.loads": OWN_BYTES,
    "np.load": ("tasks/_images/features.py",),
    "Markup": ("report/page.py", "report/drawn.py"),
    "importlib.import_module": ("__init__.py", "component.py", "executors/ray_worker.py"),
    "import_module": ("builtin/__init__.py", "importers/__init__.py"),
}
"""Call -> files that may make it."""
READERS = {
    "files/opened.py": "the one place",
    "files/client_vectors.py": "what clients keep, of a known length",
    "builtin/__init__.py": "comes with fedsim",
    "devices/online.py": "comes with fedsim",
    "devices/charging.py": "comes with fedsim",
    "devices/people/habits.py": "comes with fedsim",
    "devices/presets.py": "comes with fedsim",
    "devices/schemas/versions.py": "comes with fedsim",
    "training/diffusion/cost.py": "comes with fedsim",
    "report/drawn.py": "our own style and script",
    "report/page.py": "comes with fedsim",
    "cli/making.py": "comes with fedsim",
    "cli/shell.py": "the null device",
    "files/record_file.py": "what clients keep, no link and no second name",
    "files/atomic.py": "a folder, to have its names on the disk",
    "records/liveness/hold.py": "its own lock, no link",
    "records/liveness/process.py": "what Linux says of processes",
    "runs/resuming/machine.py": "what Linux says of itself",
    "runs/sweeps/child.py": "its own pipe",
    "runs/sweeps/inputs.py": "what the user names, to hash it",
    "executors/cluster/parcel.py": "what the user ships, to hash it",
    "executors/cluster/survey.py": "fedsim's own source, and what Linux says of itself",
    "executors/cluster/store.py": "its own cache, compared with hashes",
    "training/written.py": "what it has just written",
    "executors/host.py": "what Linux says of itself",
    "adapters/sums.py": "what Linux says of itself",
    "runs/calibrate.py": "what Linux says of itself",
}
"""Files that read others -> why they may do it by themselves."""


@cache
def nodes_of_files():
    """File -> its nodes."""
    return {named(path): syntax(path) for path in files()}


@cache
def calls_of_files():
    """File -> its calls, each with the name of what is called."""
    return {
        file: [(ast.unparse(node.func), node) for node in nodes if isinstance(node, ast.Call)]
        for file, nodes in nodes_of_files().items()
    }


@cache
def imports_of_files():
    """File -> top-level names that it imports, and names that it takes from modules."""
    return {
        file: {name.split(".")[0] for name in imported(nodes)} for file, nodes in nodes_of_files().items()
    }


def arguments(call):
    return {word.arg: word.value for word in call.keywords}


def imported(nodes):
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module
            yield from (alias.name for alias in node.names)


def constant(value, wanted):
    return isinstance(value, ast.Constant) and value.value is wanted


@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_dangerous_module_is_imported_only_where_it_is_said_why(module):
    found = [file for file, names in imports_of_files().items() if module in names]

    assert sorted(found) == sorted(MODULES[module])


@pytest.mark.parametrize("name", sorted(CALLS))
def test_a_dangerous_call_is_made_only_where_it_is_said_why(name):
    found = {file for file, calls in calls_of_files().items() if any(called == name for called, _ in calls)}

    assert found <= set(CALLS[name])


def test_arrays_are_read_without_pickles_and_processes_start_without_a_shell():
    wrong = []
    for file, calls in calls_of_files().items():
        for name, call in calls:
            words = arguments(call)
            if name == "np.load" and not constant(words.get("allow_pickle"), wanted=False):
                wrong.append((file, name))
            if name.startswith("subprocess.") and "shell" in words:
                wrong.append((file, name))
            if words.keys() & {"weights_only", "allow_pickle"} and not constant(
                words.get("weights_only", words.get("allow_pickle")), wanted=name != "np.load"
            ):
                wrong.append((file, name))

    assert wrong == []


def test_models_of_others_bring_no_code_and_their_weights_are_safetensors():
    """Every way into transformers says so; what a configuration asks for is never taken for an answer."""
    loads, weights = [], []
    for file, calls in calls_of_files().items():
        if not file.startswith("training/"):
            assert not any(n.endswith(".from_pretrained") for n, _ in calls if "network" not in n)
            continue
        for name, call in calls:
            wanted = [name, *(ast.unparse(part) for part in call.args)] if name == "partial" else [name]
            target = next((w for w in wanted if w.endswith((".from_pretrained", ".from_config"))), "")
            if "Auto" in target:
                loads.append((file, target, constant(arguments(call).get("trust_remote_code"), wanted=False)))
            if ("AutoModel" in target and target.endswith("from_pretrained")) or (
                "_class_name" in target and "from_pretrained" in target
            ):
                weights.append(ast.unparse(arguments(call)["use_safetensors"]))

    assert len(loads) >= 5
    assert [load for load in loads if not load[2]] == []
    assert weights == ["safety.only_safetensors()"] * 2


def test_files_are_opened_in_one_place():
    """What others may have written is opened with limits and without following links; other readers are named."""
    reading = (".read_text", ".read_bytes", "read_table", ".open", "open")
    found = {
        file
        for file, calls in calls_of_files().items()
        for name, call in calls
        if name.endswith(reading) and (name == "open" or "." in name) and reads(name, call)
    }

    assert sorted(found - set(READERS)) == []


def reads(name, call):
    """Whether a call opens a file to read it: not one to write it, nor another thing's `open`."""
    if not name.endswith(("open", ".open")):
        return True
    if name in ("os.open", "os.fdopen"):
        return True
    modes = [a.value for a in call.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
    return (bool(modes) and modes[-1] in ("r", "rb", "rt", "r+", "rb+")) or name in ("Path.open", "io.open")


def test_the_lists_above_have_no_file_that_is_gone():
    named = {file for files in (*MODULES.values(), *CALLS.values()) for file in files} | set(READERS)

    assert named <= set(nodes_of_files())
