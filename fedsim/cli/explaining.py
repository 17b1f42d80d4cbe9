"""The command `fedsim explain`: what a key, a block or a kind means, takes and is by itself."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.arguments import AsJson

if TYPE_CHECKING:
    from fedsim.component import Component
    from fedsim.config.reference.entries import Entry
    from fedsim.errors import ExperimentError

Key = Annotated[
    str | None,
    typer.Argument(
        metavar="KEY",
        show_default=False,
        help="As after -s: protocol.buffer, lora, buffer; or a kind: fedit.",
    ),
]
WIDTH = 100


def explain(key: Key = None, as_json: AsJson = False) -> None:
    """Say what a key of an experiment means, takes and is without being set."""
    from fedsim.cli.printing import print_json

    if as_json:
        print_json(_facts(key))
    else:
        print("\n".join(_lines(key)))


def _facts(key: str | None) -> dict[str, object]:
    """Return the entries of a key and of those below it, or those of the components of a kind, with what they are."""
    from fedsim.config.experiment import Experiment
    from fedsim.config.reference.attributes import prose, summary
    from fedsim.config.reference.entries import below, entries

    if key is None:
        return {"keys": [e for e in entries(Experiment) if "." not in e.path]}
    found = _entries(key)
    if found:
        return {"keys": [*found, *below(Experiment, found[0].path)]}
    components = [
        {
            "block": block,
            "kind": key,
            "summary": summary(component),
            "text": prose(component),
            "keys": [e for e in below(Experiment, block) if e.kind == key],
        }
        for block, component in _components(key)
    ]
    if not components:
        raise _unknown(key)
    return {"kinds": components}


def _entries(key: str) -> list[Entry]:
    """Return what a key means: a path, a name that is known for one, or the last part of some."""
    from fedsim.config.experiment import Experiment
    from fedsim.config.reference.entries import OF_FILES, entries, of_key
    from fedsim.config.reference.schema import key_meant

    of_files = [entry for entry in OF_FILES if entry.path == key]
    if of_files:
        return of_files

    key = key.removesuffix(".kind")  # says which component a block is
    found = of_key(Experiment, key) or of_key(Experiment, key_meant(Experiment, key) or "")
    return found or [e for e in entries(Experiment) if e.path.rpartition(".")[2] == key]


def _unknown(key: str) -> ExperimentError:
    from fedsim.config.experiment import Experiment
    from fedsim.config.reference.entries import entries
    from fedsim.errors import ExperimentError, message, nearest
    from fedsim.known_names import method_pointer

    pointer = method_pointer(key)
    if pointer is not None:
        return ExperimentError(message(key, "is no key: it is a method", fix=f"write {pointer}"))
    known = {part for e in entries(Experiment) for part in (e.path, e.path.rpartition(".")[2])} - {""}
    return ExperimentError(message(key, "is no key of an experiment", fix=nearest(key, sorted(known))))


def _lines(key: str | None) -> Iterator[str]:
    from fedsim.config.experiment import Experiment
    from fedsim.config.reference.entries import about, below, entries

    if key is None:
        yield from _listed([e for e in entries(Experiment) if "." not in e.path])
        return
    found = _entries(key)
    if not found:
        components = list(_components(key))
        for block, component in components:
            yield from _of_component(block, key, component)
        if components:
            return
        raise _unknown(key)
    same: dict[tuple[str, str, str], list[Entry]] = {}
    for entry in found:
        same.setdefault((entry.meaning, entry.values, entry.default), []).append(entry)
    for alike in same.values():
        kinds = [e.kind for e in alike if e.kind]
        yield alike[0].path + (f"  (kind: {', '.join(kinds)})" if kinds else "")
        yield from _wrapped(alike[0].meaning)
        yield f"  takes: {alike[0].values}"
        yield f"  default: {alike[0].default}"
    inner = below(Experiment, found[0].path)
    if inner:
        yield from _wrapped(about(Experiment, found[0].path))
        yield ""
        yield from _listed(inner)


def _components(kind: str) -> Iterator[tuple[str, type[Component]]]:
    from fedsim.component import PACKAGES, block_of, find, kinds

    for package in PACKAGES:
        if kind in kinds(package):
            yield block_of(package), find(package, kind)


def _of_component(block: str, kind: str, component: type[Component]) -> Iterator[str]:
    from fedsim.config.experiment import Experiment
    from fedsim.config.reference.attributes import prose, summary
    from fedsim.config.reference.entries import below

    yield f"{block}: {{kind: {kind}}}"
    yield from _wrapped(summary(component))
    text = prose(component)
    if text:
        yield ""
        yield textwrap.indent(text, "  ")
    own = [e for e in below(Experiment, block) if e.kind == kind]
    if own:
        yield ""
        yield from _listed(own)


def _listed(found: list[Entry]) -> Iterator[str]:
    """One line a key; those that several kinds have are named once."""
    once = {e.path: e for e in reversed(found)}
    width = max(len(path) for path in once)
    for path in dict.fromkeys(e.path for e in found):
        entry = once[path]
        yield from textwrap.wrap(
            f"{path:<{width}}  {entry.meaning} [{entry.default}]",
            WIDTH,
            subsequent_indent=" " * (width + 2),
            break_on_hyphens=False,
        )


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="  ", subsequent_indent="  ", break_on_hyphens=False)
