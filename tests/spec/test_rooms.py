"""Which room may use which: floors, read off the source, lazy and `TYPE_CHECKING` imports counted too."""

import ast
from pathlib import Path

import fedsim

ROOT = Path(fedsim.__file__).parent

FLOORS = (
    ("__main__",),
    ("cli", "testing"),
    ("__init__", "seen"),
    ("runs",),
    ("report",),
    ("checks",),
    ("server",),
    ("protocols",),
    ("clock",),
    ("executors",),
    ("tasks",),
    ("training",),
    ("personal",),
    ("samplers",),
    ("optimizers",),
    ("aggregators",),
    ("importers",),
    ("devices",),
    ("records",),
    ("network",),
    ("jobs",),
    ("cost",),
    ("config",),
    ("builtin",),
    ("files",),
    ("adapters",),
    ("metrics",),
    ("instants",),
    ("component",),
    ("seams",),
    ("errors",),
    ("rng",),
    ("arrays",),
)
"""From the roof down: a room uses its own floor and those below it."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}


def uses(path):
    """The fedsim modules that a file names: in functions and under TYPE_CHECKING too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.partition(".")[0] == "fedsim")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "fedsim":
            for alias in node.names:
                yield f"{node.module}.{alias.name}" if file_of(f"{node.module}.{alias.name}") else node.module


def file_of(module):
    """The file of a module, or None if there is no such module."""
    base = ROOT.joinpath(*module.split(".")[1:])
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file() and path != ROOT.with_suffix(".py"):
            return path
    return None


def room(path):
    """The package or the loose file in which a file lies."""
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


EDGES = sorted({(path, file_of(module)) for path in ROOT.rglob("*.py") for module in uses(path)})


def named(path):
    return path.relative_to(ROOT).as_posix()


def test_every_room_has_a_floor():
    rooms = {p.stem for p in ROOT.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()}
    assert rooms == set(FLOOR)


def test_rooms_use_only_rooms_below_them():
    upward = [f"{named(a)} uses {named(b)}" for a, b in EDGES if FLOOR[room(b)] < FLOOR[room(a)]]
    assert upward == []


def circles(edges):
    """Groups of nodes that reach each other (Tarjan's strongly connected components of two nodes or more)."""
    after = {}
    for a, b in edges:
        after.setdefault(a, set()).add(b)
    index, low, stack, groups = {}, {}, [], []

    def visit(node):
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(after.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            groups.append(stack[at:])
            del stack[at:]

    for node in sorted(after):
        if node not in index:
            visit(node)
    return [sorted(group) for group in groups if len(group) > 1]


def test_a_circle_of_three_is_told_apart_from_what_hangs_on_it():
    assert circles([("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "d")]) == [["a", "b", "c"]]


def test_no_files_use_each_other_in_a_circle():
    assert circles((named(a), named(b)) for a, b in EDGES if a != b) == []


def test_no_rooms_use_each_other_in_a_circle():
    assert circles((room(a), room(b)) for a, b in EDGES if room(a) != room(b)) == []


def test_every_room_says_what_it_is():
    silent = [named(p) for p in ROOT.rglob("__init__.py") if not ast.get_docstring(ast.parse(p.read_text()))]
    assert silent == []
