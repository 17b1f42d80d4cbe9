"""Which room may use which: floors, read off the source, lazy and `TYPE_CHECKING` imports counted too."""

import ast

import pytest
from worlds.rooms import BEGIN, FLOOR, ROOT, WRITTEN, circles, edges, is_package, named, room, sentence, tree

PACKAGES = [name for name in FLOOR if is_package(name)]


def test_every_room_has_a_floor():
    rooms = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert rooms == set(FLOOR)


def test_rooms_use_only_rooms_below_them():
    upward = [f"{named(a)} uses {named(b)}" for a, b in edges() if FLOOR[room(b)] < FLOOR[room(a)]]
    assert upward == []


def test_a_circle_of_three_is_told_apart_from_what_hangs_on_it():
    assert circles([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "d")]) == [["a", "b", "c"]]


def test_no_files_use_each_other_in_a_circle():
    assert circles((named(a), named(b)) for a, b in edges() if a != b) == []


def test_no_rooms_use_each_other_in_a_circle():
    assert circles((room(a), room(b)) for a, b in edges() if room(a) != room(b)) == []


@pytest.mark.parametrize("name", PACKAGES)
def test_a_room_says_in_its_first_line_what_lives_there_and_what_it_uses(name):
    what, used = sentence(name)

    assert what
    assert used


def test_every_inner_package_says_what_it_is():
    silent = [named(p) for p in ROOT.rglob("__init__.py") if not ast.get_docstring(tree(p))]
    assert silent == []


@pytest.mark.parametrize(("path", "rewritten"), WRITTEN, ids=lambda v: getattr(v, "name", ""))
def test_the_tables_of_rooms_are_those_of_the_floors(path, rewritten):
    """If not: `make rooms`."""
    text = path.read_text(encoding="utf-8")

    assert BEGIN in text or path.name != "DESIGN.md"
    assert rewritten(text) == text
