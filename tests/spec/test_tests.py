"""The tests themselves: folders mirror the rooms, no test imports a test, every file says in a sentence what it holds."""

import ast
import re
from pathlib import Path

from index import INDEX, PARTS, files, index, sentence

import fedsim

ROOT = Path(__file__).parents[1]
FILES = files()
TESTS = [path for path in FILES if path.name.startswith("test_")]
ROOMS = {path.parent.name for path in Path(fedsim.__file__).parent.glob("*/__init__.py")}
BESIDE = {"hetero_profiles"}
"""What is no room of fedsim and has a folder: the data package."""
TRIED_ELSEWHERE = {"testing"}
"""Rooms whose tests are the contracts."""


def named(path):
    return path.relative_to(ROOT).as_posix()


def imported(path):
    """The names of all modules that a file imports, and of what it takes from them."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_file_lies_in_one_of_the_folders():
    assert [named(p) for p in FILES if p.relative_to(ROOT).parts[0] not in PARTS] == []
    helpers = {p for p in FILES if p.relative_to(ROOT).parts[0] in ("worlds", "oracles")}
    assert [named(p) for p in helpers if p.name.startswith("test_")] == []


def test_spec_has_the_rooms_of_fedsim_and_no_others():
    folders = {path.parent.name for path in TESTS if path.parent.parent.name == "spec"}

    assert folders == (ROOMS - TRIED_ELSEWHERE) | BESIDE


def test_no_two_tests_have_one_name():
    names = [path.name for path in TESTS]

    assert sorted(names) == sorted(set(names))


def test_no_test_imports_a_test():
    tests = {test.stem for test in TESTS}
    parts = {named(path): {part for name in imported(path) for part in name.split(".")} for path in FILES}

    assert {path: names & tests for path, names in parts.items() if names & tests} == {}


def test_a_file_says_in_one_sentence_what_it_holds():
    said = {named(path): sentence(path) for path in FILES}

    assert [path for path, text in said.items() if not text.endswith((".", "?"))] == []
    assert [path for path, text in said.items() if len(text) > 200] == []


def test_docstrings_of_tests_have_no_codes_of_some_list():
    code = re.compile(r"(?m)^\s*F\d{1,2}\b")
    texts = {
        f"{named(path)}: {node.name}": ast.get_docstring(node) or ""
        for path in TESTS
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef)
    }

    assert [where for where, text in texts.items() if code.search(text)] == []


def test_the_index_is_made_of_these_sentences():
    assert INDEX.read_text(encoding="utf-8") == index(), "python tests/index.py --write"
