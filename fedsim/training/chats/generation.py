"""What a model answers, greedily, with stock PEFT and transformers' own `generate`; and how near that is to what was expected."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedsim.adapters.adapter import Vector
from fedsim.arrays import Ints
from fedsim.training.chats.rouge import rouge_l
from fedsim.training.chats.sequences import Sequences
from fedsim.training.local import one_thread
from fedsim.training.lora import Trainee

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TOGETHER = 8
"""Questions that are answered in one batch."""


@dataclass(frozen=True)
class Answers:
    """Questions, what was expected and what was answered, one text each."""

    questions: list[str]
    references: list[str]
    texts: list[str]

    def sums(self) -> dict[str, float]:
        """Return how many there are, how many are equal up to white space, and the sum of their ROUGE-L."""
        pairs = list(zip(self.texts, self.references, strict=True))
        equal = sum(text.split() == reference.split() for text, reference in pairs)
        return {
            "rouge_l": sum(rouge_l(*pair) for pair in pairs),
            "exact_match": float(equal),
            "generated": float(len(pairs)),
        }


def answers(
    trainee: Trainee,
    tokenizer: PreTrainedTokenizerBase,
    vector: Vector,
    base: Vector | None,
    rows: Sequences,
    asked: Ints,
    most: int,
    ends: Sequence[int],
) -> Answers:
    """Return the greedy answers to the beginnings of some rows.

    Args:
        trainee: the model; `vector` is written into it.
        tokenizer: makes text of tokens, special ones left out.
        vector: the adapter.
        base: change of the frozen weights, or None.
        rows: examples; what comes after `asked` is what was expected.
        asked: tokens of each row that are the question.
        most: tokens of an answer.
        ends: tokens that end one.
    """
    trainee.rebase(base)
    trainee.write(vector)
    ids = [rows[np.array([i])].tokens.astype(np.int64) for i in range(len(rows))]
    given: dict[int, list[int]] = {}
    with one_thread(), torch.no_grad():
        for part in _together(asked, rows.most, most):
            prompts = [ids[i][: asked[i]] for i in part]
            room = min(most, rows.most + 1 - max(len(prompt) for prompt in prompts))
            given.update(zip(part, _continued(trainee, prompts, max(1, room), ends), strict=True))

    def text(tokens: Sequence[int] | Ints) -> str:
        return str(tokenizer.decode([int(t) for t in tokens], skip_special_tokens=True)).strip()

    return Answers(
        [text(row[:n]) for row, n in zip(ids, asked, strict=True)],
        [text(row[n:]) for row, n in zip(ids, asked, strict=True)],
        [text(given[i]) for i in range(len(ids))],
    )


def _together(asked: Ints, longest: int, most: int) -> Iterator[list[int]]:
    """Yield questions that are answered in one batch: about equally long ones, and those without room for a whole answer alone."""
    roomy = asked + most <= longest + 1
    order = np.argsort(asked, kind="stable")
    whole = order[roomy[order]].tolist()
    yield from (whole[at : at + TOGETHER] for at in range(0, len(whole), TOGETHER))
    yield from ([int(i)] for i in order[~roomy[order]])


def _continued(trainee: Trainee, prompts: Sequence[Ints], most: int, ends: Sequence[int]) -> list[list[int]]:
    """Return the likeliest next tokens of each prompt until one of `ends`; prompts are filled up before their beginning."""
    from transformers import GenerationConfig

    longest = max(len(prompt) for prompt in prompts)
    ids = np.full((len(prompts), longest), ends[0])
    real = np.zeros((len(prompts), longest), dtype=np.int64)
    for row, mask, prompt in zip(ids, real, prompts, strict=True):
        row[longest - len(prompt) :] = prompt
        mask[longest - len(prompt) :] = 1
    plain = GenerationConfig(
        max_new_tokens=most, do_sample=False, eos_token_id=list(ends), pad_token_id=ends[0], use_cache=True
    )
    trainee.model.generation_config = (
        plain  # else what the model's own asks for fills the gaps: repetition penalties, say
    )
    out = trainee.model.generate(
        input_ids=torch.from_numpy(ids).to(trainee.device),
        attention_mask=torch.from_numpy(real).to(trainee.device),
        generation_config=plain,
    )
    return [_until(row[longest:].tolist(), ends) for row in out]


def _until(tokens: Sequence[int], ends: Sequence[int]) -> list[int]:
    stop = next((at for at, token in enumerate(tokens) if token in ends), len(tokens))
    return list(tokens[:stop])
