"""YAML as people expect it: no duplicate keys, `1e-4` is a number, `on` and `1:30` are text, lines are known.

PyYAML follows YAML 1.1, where `1e-4` is text, `on` is true, `1:30` is 90 and the last of two equal
keys wins silently. The loader here takes the scalars of YAML 1.2's core schema instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from fedsim.errors import ExperimentError, Message, message, nearest
from fedsim.files.opened import SETTINGS_BYTES, UnreadableError, bytes_of

KeyPath = tuple[str, ...]


_PLAIN = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq", "merge")
)


class _Loader(yaml.SafeLoader):
    """Safe loader with the scalars of YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(0|[1-9][0-9_]*)|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    (
        "float",
        r"[-+]?([0-9][0-9_]*\.[0-9_]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"^(?:{_pattern})$"), list(_first))


MOST_PARTS, DEEPEST = 100_000, 50
"""Values and keys that one document may hold, one that is referred to counted every time, and how deep they may lie."""


@dataclass(frozen=True)
class Document:
    """One YAML mapping as plain values.

    Attributes:
        values: the mapping.
        lines: path of keys -> line number, from 1.
    """

    values: dict[str, Any]
    lines: dict[KeyPath, int]


def scalar(text: str, where: str) -> Any:
    """Return the value that `text` has in YAML (for `-s key=value`).

    Raises:
        ExperimentError: `text` is not YAML.
    """
    node = _compose(text, where)
    if node is not None:
        _walk(node, (), where, {})
    return None if node is None else _construct(node, where)


def read(path: Path, shown: str | None = None) -> Document:
    """Read a file that holds one mapping.

    Args:
        path: the file.
        shown: its name in messages; default `path` itself.

    Raises:
        ExperimentError: missing, unreadable, not YAML, a duplicate key, or not a mapping.
    """
    where = shown or str(path)
    try:
        text = bytes_of(path, SETTINGS_BYTES).decode("utf-8")
    except UnreadableError as problem:
        if path.is_dir():
            raise ExperimentError(_folder(where)) from problem
        raise ExperimentError(problem.message(where)) from problem
    except (FileNotFoundError, NotADirectoryError):
        raise ExperimentError(message(where, "no such file", fix=_neighbours(path))) from None
    except UnicodeDecodeError as problem:
        what = f"is not UTF-8 text (byte {problem.start})"
        raise ExperimentError(message(where, what, fix="save the file as UTF-8")) from None
    except OSError as problem:
        what = f"cannot be read ({problem.strerror})"
        raise ExperimentError(message(where, what, fix="check its permissions")) from None
    node = _compose(text, where)
    fix = "write keys and values, as in: task: {kind: language}"
    if node is None:
        raise ExperimentError(message(where, "is empty", fix=fix))
    lines: dict[KeyPath, int] = {}
    _walk(node, (), where, lines)
    values = _construct(node, where)
    if not isinstance(values, dict):
        raise ExperimentError(message(where, "must be a block of keys", got=values, fix=fix))
    return Document(values, lines)


def _folder(where: str) -> Message:
    return message(where, "is a folder, not a YAML file", fix="give the experiment's .yaml file inside it")


def plain(text: str) -> object:
    """Return the value of a text that `yaml.safe_dump` wrote, or that says so of itself.

    Raises:
        ExperimentError: it is too large or too deep, aliases counted as often as they are used.
        yaml.YAMLError: it is no YAML, or has tags of others.
    """
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        _refuse_too_much(node, "")
    except RecursionError:
        raise _too_deep("") from None
    loader = yaml.SafeLoader("")
    try:
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _neighbours(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"there is no folder {str(folder)!r}; check the path"
    names = [p.name for p in folder.iterdir() if p.suffix in (".yaml", ".yml")]
    same = [name for name in names if Path(name).stem == path.stem]
    if same:
        return f"did you mean {same[0]!r}?"
    return nearest(path.name, names) if names else "check the path; the folder holds no YAML file"


def _compose(text: str, where: str) -> yaml.Node | None:
    try:
        node = yaml.compose(text, Loader=_Loader)
        _refuse_too_much(node, where)
        return node
    except RecursionError:
        raise _too_deep(where) from None
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark or problem.context_mark
        at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        what = f"{at}not valid YAML: {', '.join(p for p in (problem.context, problem.problem) if p)}"
        fix = (
            "indent with spaces, not tabs" if "\\t" in what else "check indents, brackets, quotes and colons"
        )
        raise ExperimentError(message(where, what, fix=fix)) from None
    except yaml.YAMLError as problem:
        what = f"not valid YAML: {str(problem).splitlines()[0]}"
        raise ExperimentError(message(where, what, fix="remove control characters")) from None


def _too_deep(where: str) -> ExperimentError:
    what = f"blocks are nested deeper than {DEEPEST}, or one contains itself"
    return ExperimentError(message(where, what, fix="check brackets and aliases"))


def _refuse_too_much(node: yaml.Node | None, where: str) -> None:
    """Raise if a document is deeper or has more parts than any experiment: aliases of aliases can stand for billions."""
    level, parts = [] if node is None else [node], 0
    for _ in range(DEEPEST):
        if not level:
            return
        parts += len(level)
        if parts > MOST_PARTS:
            what = f"holds more than {MOST_PARTS:,} values, those of aliases counted every time"
            raise ExperimentError(message(where, what, fix="write the values themselves, once"))
        below: list[yaml.Node] = []
        for parent in level:
            if isinstance(parent, yaml.MappingNode):
                below += [part for pair in parent.value for part in pair]
            elif isinstance(parent, yaml.SequenceNode):
                below += parent.value
        level = below
    raise _too_deep(where)


def _construct(node: yaml.Node, where: str) -> Any:
    loader = _Loader("")
    try:
        return loader.construct_document(node)
    except (ValueError, yaml.YAMLError) as problem:
        raise ExperimentError(
            message(where, f"not valid YAML: {str(problem).splitlines()[0]}", fix="write plain values")
        ) from None
    finally:
        loader.dispose()


def _walk(node: yaml.Node, path: KeyPath, where: str, lines: dict[KeyPath, int]) -> None:
    """Note every key's line; refuse duplicate keys, keys that are not text, and foreign tags."""
    line = node.start_mark.line + 1
    if node.tag not in _PLAIN:
        what, fix = f"line {line}: tags are not supported", "write plain values"
        raise ExperimentError(message(where, what, got=node.tag, fix=fix))
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _walk(item, (*path, str(i)), where, lines)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key_node, value_node in node.value:
        at = key_node.start_mark.line + 1
        if key_node.tag == "tag:yaml.org,2002:merge":
            _walk(value_node, path, where, {})
            continue
        if key_node.tag != "tag:yaml.org,2002:str":
            got = _construct(key_node, where)
            what, fix = f"line {at}: a key must be a word", "write key: value, and quote odd keys"
            raise ExperimentError(message(where, what, got=got, fix=fix))
        key = str(key_node.value)
        name = ".".join((*path, key))
        if key in seen:
            what = f"line {at}: the key {name!r} is given twice (first on line {seen[key]})"
            raise ExperimentError(message(where, what, got=key, fix="keep one of the two"))
        seen[key] = at
        lines[(*path, key)] = at
        _walk(value_node, (*path, key), where, lines)
