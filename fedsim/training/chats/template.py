"""Chats as text: the tokenizer's template, or a file's, and where the answers are in what it writes."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.blame import described
from fedsim.errors import DataError, message
from fedsim.files.opened import UnreadableError
from fedsim.files.text_file import read_text

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Spans = list[tuple[int, int]]
"""Characters [start, stop) of answers."""
ANSWERS = "assistant"
"""The role whose turns are answers."""
TODAY = "26 Jul 2024"
"""What a template is told when it asks for today's date: chats would else have other tokens tomorrow."""
ELSE = "(something else is said here)"
"""What takes the place of an answer, to see where it is."""
_DATE = f"{{%- macro strftime_now(format) -%}}{TODAY}{{%- endmacro -%}}"
_MARKED = re.compile(r"\{%-?\s*generation\s*-?%\}")
FIX = (
    "give one: task.chat_template: FILE (Jinja, as transformers writes them); or use task.format: completion"
)


class TemplateError(Exception):
    """A template cannot write a chat, or not so that its answers can be told; the text says why."""


@dataclass(frozen=True)
class ChatTemplate:
    """A Jinja template as transformers runs it, in its sandbox.

    Attributes:
        text: of the template.
        special: names of special tokens (`eos_token`) and their text.
    """

    text: str
    special: Mapping[str, str]

    def render(self, turns: Sequence[Mapping[str, str]], *, prompt: bool = False) -> str:
        """Return a chat as text, with the beginning of an answer behind it if it is a `prompt`.

        Raises:
            TemplateError: the template raises.
        """
        return self._rendered(turns, prompt=prompt, marked=False)[0]

    def answers(self, turns: Sequence[Mapping[str, str]]) -> tuple[str, Spans]:
        """Return a chat as text and where its answers are: what comes after the beginning of an answer's turn.

        White space behind the mark that ends a turn is no part of it. A template with `{% generation %}` says itself. Of one
        that writes earlier turns otherwise when later ones follow (reasoning is left out there), what a turn says is the
        answer, with the mark that ends it.

        Raises:
            TemplateError: the template raises, or an answer is not in what it writes.
        """
        if _MARKED.search(self.text):
            return self._rendered(turns, prompt=False, marked=True)
        whole, spans = self.render(turns), []
        for at, turn in enumerate(turns):
            if turn["role"] == ANSWERS:
                span = self._span(whole, turns, at) or self._said(whole, turns, at)
                spans.append(span)
        return whole, spans

    def _span(self, whole: str, turns: Sequence[Mapping[str, str]], at: int) -> tuple[int, int] | None:
        """Return where the answer of a turn is; None: what is written of it changes with what follows."""
        told = "add_generation_prompt" in self.text and at > 0
        before = self.render(turns[:at], prompt=True) if at else ""
        until = self.render(turns[: at + 1])
        if not (whole.startswith(before) and whole.startswith(until)):
            return None
        start, end = len(before), len(until)
        if not told:
            said = _common(until, self.render(_otherwise(turns[: at + 1], at)).partition(ELSE)[0])
            start = said if at == 0 or whole[start:said].strip() else start
        content = turns[at]["content"].strip()
        there = whole.find(content, start, end)
        if there < 0:
            return start, end
        behind = whole[there + len(content) : end]
        return start, end - (len(behind) - len(behind.rstrip()) if behind.strip() else 0)

    def _said(self, whole: str, turns: Sequence[Mapping[str, str]], at: int) -> tuple[int, int]:
        """Return where what a turn says is, found by saying something else, with the mark that ends it."""
        other = _otherwise(turns, at)
        before, found, behind = self.render(other).partition(ELSE)
        start, end = len(before), len(whole) - len(behind)
        if not found or end < start or not (whole.startswith(before) and whole.endswith(behind)):
            raise TemplateError(f"it writes message {at + 1} otherwise when more follows")
        mark = self.render(other[: at + 1]).partition(ELSE)[2].rstrip()
        return start, end + (len(mark) if behind.startswith(mark) else 0)

    def _rendered(
        self, turns: Sequence[Mapping[str, str]], *, prompt: bool, marked: bool
    ) -> tuple[str, Spans]:
        from transformers.utils.chat_template_utils import render_jinja_template

        dated = _DATE + self.text if "strftime_now" in self.text else self.text
        try:
            texts, spans = render_jinja_template(
                [[dict(turn) for turn in turns]],
                chat_template=dated,
                add_generation_prompt=prompt,
                return_assistant_tokens_mask=marked,
                **self.special,
            )
        except Exception as problem:  # whatever a template of others raises
            raise TemplateError(described(problem)) from problem
        return str(texts[0]), [(int(a), int(b)) for a, b in spans[0]] if marked else []


def _otherwise(turns: Sequence[Mapping[str, str]], at: int) -> list[dict[str, str]]:
    """Return the turns with one of them saying something else."""
    return [{**turn, "content": ELSE} if i == at else dict(turn) for i, turn in enumerate(turns)]


def _common(text: str, other: str) -> int:
    """Return how many characters two texts have in common at their beginning."""
    return next((at for at, (a, b) in enumerate(zip(text, other, strict=False)) if a != b), len(other))


def template_of(tokenizer: PreTrainedTokenizerBase, file: str | None, model: str) -> ChatTemplate:
    """Return the template of a file, or the tokenizer's own.

    Raises:
        DataError: the file cannot be read, or is no template; the tokenizer has none.
    """
    if file is not None:
        try:
            text = read_text(Path(file))
        except (UnreadableError, OSError) as problem:
            what = f"the template cannot be read ({problem})"
            raise DataError(message("task.chat_template", what, got=file, fix="check the path")) from problem
    else:
        try:
            text = tokenizer.get_chat_template()
        except ValueError as problem:
            what = "the tokenizer has no chat template"
            raise DataError(message("task.format", what, got=model, fix=FIX)) from problem
    template = ChatTemplate(text, {k: str(v) for k, v in tokenizer.special_tokens_map.items()})
    _check(template, file)
    return template


def _check(template: ChatTemplate, file: str | None) -> None:
    """Refuse what is no template, or writes nothing of a message, before any data is looked at."""
    from jinja2 import TemplateSyntaxError

    turns = ({"role": "user", "content": "a question"}, {"role": ANSWERS, "content": "an answer"})
    try:
        text = template.render(turns)
    except TemplateError as problem:
        if not isinstance(problem.__cause__, TemplateSyntaxError):
            return  # it may want other turns: the data say
        what = f"it is no Jinja template: {problem}"
        raise DataError(message("task.chat_template", what, got=file, fix="correct it")) from problem
    if turns[1]["content"] not in text:
        what, fix = "the template does not write what a message says", "write {{ message.content }} into it"
        raise DataError(message("task.chat_template", what, got=file, fix=fix))
