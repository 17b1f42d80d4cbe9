"""What can be said of a command, a block of YAML or of Python without running it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from typer.main import get_command

import fedsim
from fedsim.checks.gate import admit, read
from fedsim.cli.app import app
from fedsim.component import PACKAGES, block_of, kinds
from fedsim.config.experiment import Experiment
from fedsim.config.loading import sweep_points
from fedsim.config.reference.entries import entries, of_key
from fedsim.errors import ExperimentError
from fedsim.files import yaml_file
from worlds.pages import ROOT, Block

CLI = get_command(app)
KEYS = {entry.path for entry in entries(Experiment)}
KINDS_OF = {block_of(package): kinds(package) for package in PACKAGES}
KINDS = {kind for of_block in KINDS_OF.values() for kind in of_block}
REST: dict[str, Any] = {
    "population": {"preset": "mixed_edge_2026", "clients": 20},
    "task": {"kind": "language"},
    "protocol": {"kind": "synchronous", "cohort": 4, "deadline_s": 3600},
    "budget": {"commits": 1},
}
"""What a block of YAML that shows a part of an experiment is a part of."""
ABSENT = r"no such file|neither an existing path nor a hub id|is no folder of a saved adapter"
"""What is said of files that a reader has, and the pages have not."""


# fedsim's own commands ---------------------------------------------------------------------------


def parsed(args: list[str]) -> dict[str, Any]:
    """The values of a command line of fedsim by the parser that it really has; raises what the parser raises."""
    group, name, rest = CLI, args[0], args[1:]
    while name in getattr(group, "commands", {}) and hasattr(group.commands[name], "commands"):
        group, name, rest = group.commands[name], rest[0], rest[1:]
    if name.startswith("-"):
        assert name in {option for p in CLI.params for option in p.opts}, name
        return {}
    assert name in group.commands, f"no such command: fedsim {name}"
    command = group.commands[name]
    if "--help" in rest:
        return {}
    return dict(command.make_context(name, list(rest)).params)


def unknown_settings(changes: list[str] | None) -> list[str]:
    """The keys of `-s KEY=VALUE` that no experiment has, and values that are no YAML."""
    wrong = []
    for change in changes or ():
        key, is_, value = change.partition("=")
        yaml_file.scalar(value, "")
        if not is_ or not (key in KEYS or key == "sweep" or re.match(r"(task\.settings|sweep)\.", key)):
            wrong.append(change)
    return wrong


def accepted(args: list[str], folder: Path, *, gate: bool = True) -> None:
    """Parse a command, and have the gate look at the experiment that it starts, if that is there; raises what is refused."""
    values = parsed(args)
    changes = list(values.get("changes") or ())
    assert unknown_settings(changes) == []
    if args[0] == "explain" and values.get("key"):
        assert of_key(Experiment, values["key"]) or values["key"] in KINDS | {
            k.rpartition(".")[2] for k in KEYS
        }
    file = values.get("experiment")
    path = next((p for p in (folder / str(file), ROOT / str(file)) if file and p.is_file()), None)
    assert path is not None or not str(file).startswith("experiments/"), file
    if path is not None and gate:
        admitted(path, changes)


def admitted(path: Path, changes: list[str] = ()) -> None:
    """Read an experiment, or the points of a sweep, as a run would; raises what is refused."""
    swept = "sweep" in yaml_file.read(path).values or any(c.startswith("sweep") for c in changes)
    try:
        if not swept:
            read(path, changes)
            return
        for _, point in sweep_points(path, changes):
            admit(point, str(path))
    except ExperimentError as refusal:
        wrong = [line for line in str(refusal).splitlines() if not line.startswith("  fix: ")]
        if not all(re.search(ABSENT, line) for line in wrong):
            raise


# YAML --------------------------------------------------------------------------------------------


def alternatives(text: str) -> list[str]:
    """A block in which a key of the top level comes again shows alternatives: each from its key on."""
    found: list[list[str]] = [[]]
    keys: set[str] = set()
    for line in text.splitlines(keepends=True):
        key = re.match(r"(\w+):", line)
        if key and key[1] in keys:
            found.append([])
            keys = set()
        keys |= {key[1]} if key else set()
        found[-1].append(line)
    return ["".join(lines) for lines in found]


def whole(shown: dict[str, Any]) -> bool:
    """Whether a block shows a whole experiment, or one that starts from another file."""
    return "extends" in shown or REST.keys() - {"protocol"} <= shown.keys()


def completed(shown: dict[str, Any]) -> dict[str, Any]:
    """An experiment that has what a block shows, and else what any has."""
    rest = {k: v for k, v in REST.items() if k not in shown or k in ("population", "task")}
    for key in ("population", "task"):
        if (
            key in shown
            and "kind" not in shown[key]
            and "preset" not in shown[key]
            and "devices" not in shown[key]
        ):
            rest[key] = {**rest[key], **shown[key]}
    return {**rest, **{k: v for k, v in shown.items() if k not in rest or rest[k] == REST.get(k)}}


def yaml_accepted(block: Block, folder: Path) -> None:
    """Hold every experiment that a block shows against the gate; raises what is refused."""
    for number, text in enumerate(alternatives(block.text)):
        shown = yaml_file.scalar(text, "")
        assert isinstance(shown, dict), f"{block}: no experiment"
        name = block.name or f"shown-{block.line}-{number}.yaml"
        path = folder / name
        if not block.name:
            path.write_text(yaml.safe_dump(shown if whole(shown) else completed(shown)), encoding="utf-8")
        admitted(path)


# Python ------------------------------------------------------------------------------------------


class Names(ast.NodeVisitor):
    """What of fedsim a piece of Python names: each name must be there, and each argument one that is taken."""

    def __init__(self) -> None:
        self.known: dict[str, object] = {}
        self.wrong: list[str] = []
        self.resolved = 0

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if alias.name.split(".")[0] == "fedsim":
                module = importlib.import_module(alias.name)
                self.known[alias.asname or "fedsim"] = module if alias.asname else fedsim

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        if module.split(".")[0] == "fedsim":
            home = importlib.import_module(module)
            for alias in node.names:
                self._take(alias.asname or alias.name, home, alias.name)
        elif not (find_spec(module.split(".")[0]) or module.startswith("my_")):
            self.wrong.append(f"no module {module}")

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        value = node.value
        if isinstance(value, ast.Call) and isinstance(node.targets[0], ast.Name):
            function = self._value(value.func)
            if inspect.isfunction(function):
                returned = get_type_hints(function).get("return")
                self.known[node.targets[0].id] = returned if inspect.isclass(returned) else None

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.generic_visit(node)
        self._value(node)

    def visit_Call(self, node: ast.Call) -> None:
        self.generic_visit(node)
        function = self._value(node.func)
        if function is not None and callable(function):
            try:
                taken = inspect.signature(function).parameters.values()
            except ValueError:
                return
            if not any(p.kind is p.VAR_KEYWORD for p in taken):
                names = {p.name for p in taken}
                self.wrong += [
                    f"{ast.unparse(node.func)} takes no {k.arg}"
                    for k in node.keywords
                    if k.arg and k.arg not in names
                ]

    def _take(self, name: str, home: object, attribute: str) -> None:
        if not hasattr(home, attribute):
            self.wrong.append(f"{home} has no {attribute}")
        self.known[name] = getattr(home, attribute, None)
        self.resolved += 1

    def _value(self, node: ast.AST) -> object:
        """What a dotted name stands for, as far as that can be known; None where it cannot."""
        if isinstance(node, ast.Name):
            return self.known.get(node.id)
        if not isinstance(node, ast.Attribute):
            return None
        home = self._value(node.value)
        if home is None or not (inspect.ismodule(home) or inspect.isclass(home)):
            return None
        if hasattr(home, node.attr):
            self.resolved += 1
            found = getattr(home, node.attr)
            return found if inspect.ismodule(home) or inspect.isfunction(found) else None
        if node.attr not in getattr(home, "__annotations__", {}):
            self.wrong.append(f"{ast.unparse(node.value)} has no {node.attr}")
        return None


def names_in(block: Block, before: Names | None = None) -> Names:
    """Visit a block of Python; what a page has named before it is known."""
    names = before or Names()
    names.visit(ast.parse(block.text, str(block)))
    return names


# everything else ---------------------------------------------------------------------------------


def script_accepted(words: list[str]) -> None:
    """Hold a call of `python` against the script or module that it names: that is there, and so are its options."""
    rest = words[1:]
    if rest[0] == "-m":
        module, rest = rest[1], rest[2:]
        home = ROOT / module.replace(".", "/")
        texts = sorted(home.glob("*.py")) if home.is_dir() else [home.with_suffix(".py")]
    else:
        texts, rest = [ROOT / rest[0]], rest[1:]
    assert [path for path in texts if path.is_file()] == texts != [], words
    source = "".join(path.read_text(encoding="utf-8") for path in [*texts, *_imported(texts)])
    handed_on = {"-s"} if "from fedsim.cli.app import call" in source else set()
    missing = [w for w in rest if re.match(r"--?[a-z]", w) and not re.search(rf"""["']{w}["']""", source)]
    assert set(missing) <= handed_on, words
    assert not handed_on or unknown_settings([b for a, b in pairwise(rest) if a == "-s"]) == []


def _imported(texts: list[Path]) -> list[Path]:
    """Modules of the repository's own scripts that some import, by their whole names or from beside them: options may be theirs."""
    found = []
    for path in texts:
        source = path.read_text(encoding="utf-8")
        for module in re.findall(
            r"^from ((?:benchmarks|experiments|scripts)[\w.]*) import", source, re.MULTILINE
        ):
            at = ROOT / module.replace(".", "/")
            found += [p for p in (at.with_suffix(".py"), at / "__init__.py") if p.is_file()]
        beside = (
            path.parent / f"{name}.py" for name in re.findall(r"^from (\w+) import", source, re.MULTILINE)
        )
        found += [p for p in beside if p.is_file()]
    return found


def make_accepted(words: list[str]) -> None:
    """Hold `make TARGET` against the Makefile."""
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(words[1:]) <= targets, words


def pip_accepted(words: list[str]) -> None:
    """Hold `pip install` against the extras and files that there are."""
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    extras = set(
        re.findall(r"^(\w+) = \[", project.partition("[project.optional-dependencies]")[2], re.MULTILINE)
    )
    for word in words[2:]:
        named = re.fullmatch(r"fedsim-edge\[([\w,]+)\]", word)
        assert not named or set(named[1].split(",")) <= extras, words
    for option, file in pairwise(words):
        assert option not in ("-c", "-r") or (ROOT / file).is_file(), words


def pytest_accepted(words: list[str]) -> None:
    """Hold a call of pytest against the tests that there are."""
    assert all((ROOT / w).exists() for w in words[1:] if w.startswith("tests")), words


OTHERS = {
    "make": make_accepted,
    "pip": pip_accepted,
    "pytest": pytest_accepted,
    "python": script_accepted,
}
"""Programs that are not fedsim's own, and what holds their calls against what there is."""


# what is named in prose --------------------------------------------------------------------------


def is_key(name: str) -> bool:
    """Whether an experiment has such a key, or a file such a name."""
    if name in KEYS or name == "sweep" or name.startswith("task.settings."):
        return True
    block, _, last = name.rpartition(".")
    return (last == "kind" and (block in KEYS)) or last in ("py", "parquet", "yaml", "json", "html")


def unknown_keys(span: str) -> list[str]:
    """The keys and kinds of `block: {key: value}` in a sentence that no experiment has."""
    try:
        shown = yaml_file.scalar(span, "")
    except ExperimentError:
        return []
    wrong = []
    for block, values in shown.items() if isinstance(shown, dict) else ():
        if block not in Experiment.model_fields or not isinstance(values, dict):
            continue
        kind = values.get("kind")
        if kind is not None and block in KINDS_OF and ":" not in kind and kind not in KINDS_OF[block]:
            wrong.append(f"{block}.kind: {kind}")
        for key in values.keys() - {"kind"}:
            of_kinds = {entry.kind for entry in of_key(Experiment, f"{block}.{key}")}
            if not of_kinds or (kind in KINDS and not of_kinds & {"", kind}):
                wrong.append(f"{block}.{key}")
    return wrong


def unknown_options(words: list[str]) -> list[str]:
    """The command, if there is none of that name, or the options of `fedsim ...` in a sentence that it does not have."""
    command, rest = CLI, list(words)
    while rest and hasattr(command, "commands"):
        if rest[0] not in command.commands:
            break
        command = command.commands[rest.pop(0)]
    taken = {option for p in command.params for option in p.opts} | {
        "--help",
        "-h",
        "--debug",
        "--install-completion",
    }
    if hasattr(command, "commands") and rest and re.fullmatch(r"[a-z]+", rest[0]):
        return [rest[0]]
    return [word for word in rest if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in taken]
