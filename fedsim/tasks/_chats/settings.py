"""Settings of examples: what a row is, its columns, and what is generated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from fedsim.component import Config
from fedsim.errors import invalid

Format = Literal["chat", "instruction", "completion"]
LossOn = Literal["answers", "all"]
PARTS: Mapping[Format, tuple[str, ...]] = {
    "chat": ("messages",),
    "completion": ("prompt", "completion"),
    "instruction": ("instruction", "input", "output"),
}
"""What a row of each format has."""


class Columns(Config):
    """Names of a table's columns where they are not the usual ones.

    Attributes:
        messages: of chats: lists of messages, each with `role` and `content`.
        prompt, completion: of completions.
        instruction, input, output: of instructions; `input` may be missing.
    """

    messages: str | None = None
    prompt: str | None = None
    completion: str | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None

    def of(self, part: str) -> str | None:
        """Return the name that was given for a part of a row."""
        names: dict[str, str | None] = self.model_dump()
        return names[part]

    @property
    def named(self) -> list[str]:
        """The parts for which a name was given."""
        return [part for part, name in self.model_dump().items() if name is not None]


class Generate(Config):
    """What a model is asked to answer, where `evaluate.splits` has `answers`, and for the report.

    Attributes:
        examples: test examples whose last answer is generated and compared, greedily, at most.
        tokens: of an answer, at most.
        shown: examples whose answers are kept before and after, and of a few clients with their own model.
    """

    examples: Annotated[int, Field(ge=1, le=10_000)] = 64
    tokens: Annotated[int, Field(ge=1, le=4096)] = 64
    shown: Annotated[int, Field(ge=0, le=20)] = 3


def check_examples(
    kind: str, columns: Columns, loss_on: LossOn | None, chat_template: str | None, *, pack: bool
) -> None:
    """Refuse settings of examples that have no meaning with this format.

    Raises:
        PydanticCustomError: as a validator of settings does.
    """
    if kind == "text":
        given = {
            "loss_on": "answers" if loss_on == "answers" else None,
            "columns": columns.named[0] if columns.named else None,
            "chat_template": chat_template,
            "pack": pack or None,
        }
        for name, value in given.items():
            if value is not None:
                fix = "set format: chat, instruction or completion, or drop it"
                raise invalid("running text has no examples", where=name, got=value, fix=fix)
        return
    parts = next(parts for name, parts in PARTS.items() if name == kind)
    strange = [part for part in columns.named if part not in parts]
    if strange:
        fix = f"name one of {', '.join(parts)}, or choose another format"
        raise invalid(f"format {kind} has no such column", where="columns", got=strange[0], fix=fix)
    if kind == "completion" and chat_template is not None:
        fix = "drop it, or set format: instruction"
        raise invalid(
            "completions are written without a template", where="chat_template", got=chat_template, fix=fix
        )
