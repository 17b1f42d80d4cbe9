"""The tables of what goes together, as Markdown, by discovery of every kind that ships."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args, get_origin

from fedsim.aggregators._base import Traits
from fedsim.checks.choice import Choice, Path
from fedsim.checks.limits import EVER, facts, refusals, words
from fedsim.clock.protocol import ServerProtocol
from fedsim.component import find, kinds

EXACT = (
    "Exact: the product of the new model is the weighted mean of the clients' products, as they arrive. What "
    "`wire` rounds on its way is another product; under `fedsvd` a rounded A is projected besides.\n"
)
INTRODUCTION = """\
# What goes together

Written by `python -m fedsim.checks` from the limits that every experiment is checked against before it
starts: a run that is refused says the same sentences. A number leads to the reason below.
"""


@dataclass(frozen=True)
class Feature:
    """One column of the table: what a plain experiment is changed to.

    Attributes:
        name: the column's heading.
        changes: fields of the `Choice` that a plain experiment makes.
        blocks: what a file says for it, as plain values by block.
    """

    name: str
    changes: dict[str, Any]
    blocks: Mapping[str, Mapping[str, object]]


def plain(package: str, kind: str) -> Any:
    """Return a component with its default settings."""
    component: Any = find(package, kind)
    return component()


def rules() -> list[tuple[str, Traits]]:
    """Return the kinds of rules that ship, with their traits."""
    return [(kind, plain("aggregators", kind).traits) for kind in kinds("aggregators")]


def protocols() -> list[ServerProtocol]:
    """Return each protocol that ships with its defaults, and with each setting that gives it other facts."""
    return [variant for kind in kinds("protocols") for variant in variants(plain("protocols", kind))]


def variants(protocol: ServerProtocol) -> Iterator[ServerProtocol]:
    """Yield a protocol, and it with each choice of a word that changes what a limit looks at."""
    yield protocol
    for name, field in type(protocol).model_fields.items():
        if get_origin(field.annotation) is not Literal:
            continue
        for word in get_args(field.annotation):
            other = type(protocol).model_validate({"kind": protocol.kind, name: word})
            if facts(other) != facts(protocol):
                yield other


def heading(protocol: ServerProtocol) -> str:
    """Return the kind of a protocol, with what is set differently from its defaults."""
    changed = protocol.model_dump(exclude_defaults=True)
    return ", ".join([protocol.kind, *(f"`{k}: {v}`" for k, v in changed.items())])


def protocol_features() -> list[Feature]:
    """Return a column for each protocol."""
    return [
        Feature(heading(protocol), facts(protocol), {"protocol": protocol.model_dump(mode="json")})
        for protocol in protocols()
    ]


def other_features() -> list[Feature]:
    """Return a column for everything else that an experiment may ask of a rule."""
    return [
        Feature("unequal ranks", {"ranks": "memory"}, {"lora": {"rank_by": "memory"}}),
        Feature("depth by device", {"depths": True}, {"lora": {"depth_by": "memory"}}),
        Feature("server optimiser", {"optimizer": "adam"}, {"server_optimizer": {"kind": "adam"}}),
        Feature("bfloat16, int8, int4", {}, {"wire": {"dtype": "int8"}}),
        Feature("top-k", {"top_k": True}, {"wire": {"top_k": 0.1}}),
        Feature("error feedback", {"feedback": True}, {"wire": {"dtype": "int8", "error_feedback": True}}),
        Feature("average of versions", {"average": True}, {"evaluate": {"ema": 0.9}}),
        Feature("best version kept", {"best": True}, {"evaluate": {"keep_best": "loss"}}),
        *(
            Feature(kind, {"personal": plain("personal", kind)}, {"personal": {"kind": kind}})
            for kind in kinds("personal")
        ),
        Feature("whole models", {"whole": True}, {"lora": {"full": True}}),
        Feature("DoRA", {"dora": True}, {"lora": {"dora": True}}),
        Feature("biases", {"bias": "lora_only"}, {"lora": {"bias": "lora_only"}}),
        Feature("whole modules", {"saved": ("lm_head",)}, {"lora": {"modules_to_save": ["lm_head"]}}),
        Feature("patterns of rank and alpha", {"patterned": True}, {"lora": {"rank_pattern": {"q_proj": 4}}}),
        Feature("a saved adapter", {"started": True}, {"lora": {"start_from": "adapter"}}),
        Feature("quantised weights", {"quantised": True}, {"task": {"quantise": "nf4"}}),
    ]


def markdown() -> str:
    """Return the tables and the sentences that they refer to."""
    notes: list[str] = []
    exact = [
        [
            f"`{kind}`",
            *(
                "yes" if has else "no"
                for has in (t.exact, t.unequal_ranks, t.unequal_depths, t.moves_base, t.personal)
            ),
        ]
        for kind, t in rules()
    ]
    at_large = Choice("", Traits(exact=False, unequal_ranks=True), "the protocol", optimizer="the optimiser")
    parts = [
        INTRODUCTION,
        "## What each rule is\n",
        _table(
            [
                "rule",
                "exact",
                "ranks may differ",
                "depths may differ",
                "moves the base",
                "clients keep a part",
            ],
            exact,
        ),
        EXACT,
        "## Rules and protocols\n",
        _grid(protocol_features(), notes),
        "## Rules and everything else\n",
        _grid(other_features(), notes),
        "## Why not\n",
        "\n".join(f"{number}. {note}" for number, note in enumerate(notes, 1)),
        "\n## Whatever the rule\n",
        "\n".join(f"* {_note(limit.path, *words(limit, at_large))}" for limit in EVER),
    ]
    return "\n".join(parts) + "\n"


def _note(path: Path, what: str, fix: str) -> str:
    return f"`{'.'.join(path)}`: {what}. Fix: {fix}."


def _grid(features: Sequence[Feature], notes: list[str]) -> str:
    rows = []
    for kind, traits in rules():
        cells = []
        for feature in features:
            choice = replace(Choice("of this row", traits), **feature.changes)
            said = [_note(path, *words) for path, words in refusals(choice)]
            notes += [note for note in said if note not in notes]
            cells.append(", ".join(f"no ({notes.index(note) + 1})" for note in said) or "yes")
        rows.append([f"`{kind}`", *cells])
    return _table(["rule", *(feature.name for feature in features)], rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
