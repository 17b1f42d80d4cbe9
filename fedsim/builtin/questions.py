"""Questions and answers to run on when one is given no chats: what a function or class does, and its docstring's first paragraph.

They are read off the same sources as the federated text (`fedsim.builtin.documents`), so nothing is shipped, and another
Python version has slightly others.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from fedsim.builtin import Document, documents

SHORTEST = 12
"""Characters of an answer; less says nothing."""


@dataclass(frozen=True, slots=True)
class Question:
    """One question about the standard library.

    Attributes:
        document, group: whose source it is of, as in `Document`.
        question, answer: text.
    """

    document: str
    group: str
    question: str
    answer: str


def questions() -> list[Question]:
    """Return about 1,200 questions in a fixed order.

    Raises:
        DataError: this Python has no sources.
    """
    return [
        question for document in documents() if document.name.endswith(".py") for question in _of(document)
    ]


def _of(document: Document) -> Iterator[Question]:
    tree = ast.parse(document.text)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            said = ast.get_docstring(node)
            answer = " ".join((said or "").split("\n\n")[0].split())
            if len(answer) >= SHORTEST:
                kind = "class" if isinstance(node, ast.ClassDef) else "function"
                yield Question(document.name, document.group, f"What does the {kind} {node.name} do?", answer)
