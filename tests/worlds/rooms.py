"""The rooms of fedsim and their floors, read off the source; `python tests/worlds/rooms.py` writes what is shown of them.

It writes the table of DESIGN.md and the table of contents in `fedsim/__init__.py`, both from `FLOORS` and from the
first line of each room's docstring: `What lives there; uses what.`
"""

import ast
import re
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
ROOT = REPOSITORY / "fedsim"

FLOORS = (
    ("__main__",),
    ("cli", "testing"),
    ("__init__", "plots", "seen", "views"),
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
    ("trackers",),
    ("callbacks",),
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
    ("blame",),
    ("known_names",),
    ("errors",),
    ("redaction",),
    ("rng",),
    ("elementary",),
    ("arrays",),
)
"""From the roof down: a room uses its own floor and those below it."""

FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}

LIBRARIES = {
    "simpy": {"instants.py", "network/", "clock/", "server/", "runs/"},
    "ray": {"executors/ray.py", "executors/ray_worker.py"},
    "torch": {"training/", "tasks/"},
    "transformers": {"training/"},
    "peft": {"training/"},
    "diffusers": {"training/"},
    "pandas": {"records/", "report/", "testing/"},
    "plotly": {"plots.py", "report/"},
    "matplotlib": {"report/printed/"},
    "rich": {"cli/"},
    "tensorboard": {"trackers/"},
    "wandb": {"trackers/"},
    "mlflow": {"trackers/"},
    "typer": {"cli/"},
}
"""Which rooms (or files) may import a library of others that is heavy or belongs to one thing."""

BEGIN, END = "<!-- rooms: written by `make rooms` -->", "<!-- end of rooms -->"
CONTENTS = re.compile(r"(?<=holds it\):\n\n).*?(?=\"\"\")", re.DOTALL)


@cache
def files():
    """Every file of the source, sorted."""
    return sorted(ROOT.rglob("*.py"))


@cache
def tree(path):
    """The syntax of a file; parsed once, for all who look at it."""
    return ast.parse(path.read_text(encoding="utf-8"))


@cache
def syntax(path):
    """Every node of a file, as `ast.walk` has them."""
    return tuple(ast.walk(tree(path)))


def uses(path):
    """The fedsim modules that a file names: in functions, under TYPE_CHECKING and as text to import, too."""
    for node in syntax(path):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if is_ours(a.name))
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{named(path)}: a relative import hides which room it uses"
            if is_ours(node.module):
                for alias in node.names:
                    name = f"{node.module}.{alias.name}"
                    yield name if file_of(name) else node.module
        elif isinstance(node, ast.Call) and name_of(node.func) == "import_module":
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and is_ours(a.value))


@cache
def libraries(path):
    """Top-level names of all imports of a file, those inside functions and TYPE_CHECKING too."""
    names = set()
    for node in syntax(path):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names


def name_of(function):
    """The last word of what is called: `f` of `f()` and of `a.b.f()`; empty for what has no name."""
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def place(path, places):
    """Which of some places (`room/`, or a file) a file is in; None: in none."""
    return next(
        (p for p in places if named(path) == p or (p.endswith("/") and named(path).startswith(p))), None
    )


def is_ours(module):
    return module.partition(".")[0] == "fedsim"


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


def named(path):
    return path.relative_to(ROOT).as_posix()


@cache
def edges():
    """(file, file that it uses) of all of fedsim, sorted."""
    return sorted({(path, file_of(module)) for path in files() for module in uses(path)})


def circles(pairs):
    """Groups of nodes that reach each other (Tarjan's strongly connected components of two nodes or more)."""
    after = {}
    for a, b in pairs:
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


def is_package(name):
    return (ROOT / name).is_dir()


def sentence(name):
    """(what lives in a room, what it uses) by the first line of its docstring; a loose file need not say the latter."""
    if name == "__init__":
        return "The public names, imported when they are first used", ""
    path = ROOT / name / "__init__.py" if is_package(name) else ROOT / f"{name}.py"
    line = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).splitlines()[0].removesuffix(".")
    what, _, used = line.partition("; uses ")
    return what, used


def table():
    """The table of DESIGN.md, one room a row, top floor first."""
    rows = ["| floor | room | what lives there | what it uses |", "|--:|---|---|---|"]
    for number, rooms in enumerate(reversed(FLOORS)):
        for name in rooms:
            shown = f"`{name}/`" if is_package(name) else f"`{name}.py`"
            rows.insert(2, f"| {number} | {shown} | {' | '.join(sentence(name))} |")
    rows += ["", "| library | imported in |", "|---|---|"]
    rows += [f"| {name} | {', '.join(f'`{p}`' for p in sorted(at))} |" for name, at in LIBRARIES.items()]
    return "\n".join(rows)


def contents():
    """The lines of `fedsim/__init__.py`'s docstring, one package a line, top floor first."""
    packages = [name for rooms in FLOORS for name in rooms if is_package(name)]
    return "".join(f"    {name:<12} {sentence(name)[0]}\n" for name in packages)


def design_with(text):
    """DESIGN.md with the table between its two marks."""
    before, _, rest = text.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


def package_with(text):
    """`fedsim/__init__.py` with the table of contents at the end of its docstring."""
    return CONTENTS.sub(lambda _: contents(), text, count=1)


WRITTEN = ((REPOSITORY / "DESIGN.md", design_with), (ROOT / "__init__.py", package_with))
"""(file, what its text becomes)."""


if __name__ == "__main__":
    for file, rewritten in WRITTEN:
        file.write_text(rewritten(file.read_text(encoding="utf-8")), encoding="utf-8")
