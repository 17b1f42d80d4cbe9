"""From a configuration to a task of examples: text, tokens, clients, rows, and the facts about them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsim.arrays import Ints
from fedsim.errors import DataError, message
from fedsim.jobs import TaskContext
from fedsim.rng import seed_of, stream
from fedsim.tasks._chats.examples import Examples
from fedsim.tasks._chats.packing import packed
from fedsim.tasks._chats.reading import Source, digest, read
from fedsim.tasks._chats.task import ChatTask, Held
from fedsim.tasks._chats.tokens import Cutting, Tokenised, Write, by_template, plainly, tokenised
from fedsim.tasks._language.build import described, model_name
from fedsim.tasks._language.topics import divergence_bits, topics
from fedsim.tasks._natural.last import last_at_the_end, said_of_owners
from fedsim.tasks._splits import Ragged, Splits
from fedsim.tasks.partition import Blocks, Dirichlet, Iid, Pathological, partition
from fedsim.training import hub
from fedsim.training.beside.saved_adapter import check_saved
from fedsim.training.chats.sequences import joined
from fedsim.training.chats.stock import check_takes_places
from fedsim.training.chats.template import template_of

if TYPE_CHECKING:
    from tokenizers import Encoding

    from fedsim.tasks._language.settings import LanguageSettings

LEAST = 2
"""Examples of a client: one to train on, one to keep apart."""
Facts = dict[str, object]


@dataclass(frozen=True)
class _Dealt:
    """Rows of all clients: those that they train on first, then what they keep apart; and whose they are."""

    held: Held
    splits: Splits
    facts: Facts
    notices: list[str]


def prepare_examples(config: LanguageSettings, context: TaskContext) -> ChatTask:
    """Return the task of chats, instructions or completions; see `Language.build`."""
    name = model_name(config)
    model = described(name, config.sequence, context, config.quantised())
    check_saved(model.layout, context.lora)
    read_splits, notices = read(_source(config))
    cutting = _cutting(config, name, model.shape.vocab)
    parts = {split: tokenised(whole.examples, cutting, split) for split, whole in read_splits.items()}
    splits = {split: whole.take(parts[split].kept) for split, whole in read_splits.items()}
    held = {split: Held(part.sequences, part.asked) for split, part in parts.items()}
    apart = {"test": len(splits["test"]), "valid": len(splits.get("valid", ()))}
    dealt = _dealt(config, context, splits["train"], parts["train"], apart)
    lost = [sentence for split, part in parts.items() for sentence in _left_out(part, split, config.sequence)]
    notices = [*notices, *lost, *model.notices, *dealt.notices]
    if config.pack and not _written_out(name, context):
        check_takes_places(hub.skeleton(name))
    task = ChatTask(
        model=name,
        lora=context.lora,
        numerics=context.numerics,
        gpus_per_worker=context.gpus_per_worker,
        seed=context.seed,
        training_seed=context.first_seed,
        layout=model.layout,
        shape=model.shape,
        splits=dealt.splits,
        facts=_facts(config, read_splits, parts, model.shape.vocab) | dealt.facts | {"notices": notices},
        cache_bytes=context.cache_bytes,
        dealt=dealt.held,
        test=held["test"],
        valid=held.get("valid"),
        generate=config.generate,
        ends=_ends(parts["train"], name),
        quantise=config.quantised(),
    )
    longest = int(dealt.held.sequences.counts[dealt.splits.training.rows].max())
    return replace(task, shape=replace(model.shape, sequence=task.example_tokens, longest=longest))


def _source(config: LanguageSettings) -> Source:
    assert config.format != "text"
    return Source(
        config.data,
        config.format,
        config.columns,
        config.on_answers,
        config.data_config,
        config.data_revision,
        config.client_column,
        config.label_column,
        config.time_column,
    )


def _cutting(config: LanguageSettings, name: str, vocabulary: int) -> Cutting:
    """Return how examples become tokens: with the model's own tokenizer, and its template or a file's."""
    tokenizer = hub.tokenizer(name)
    if not tokenizer.is_fast:
        what, fix = (
            "the tokenizer does not say which characters its tokens are",
            "give a folder with a tokenizer.json",
        )
        raise DataError(message("task.model", what, got=name, fix=fix))

    def encode(texts: Sequence[str]) -> Sequence[Encoding]:
        batch = tokenizer(list(texts), add_special_tokens=False, return_attention_mask=False, verbose=False)
        return list(batch.encodings)

    plain = config.format == "completion"
    write: Write = plainly
    if not plain:
        template = template_of(tokenizer, config.chat_template, name)
        write = by_template(template, on_answers=config.on_answers)
    last = hub.end_of_text(tokenizer) if plain else None
    bos = tokenizer.bos_token_id
    first = (last if bos is None else int(bos)) if plain else None
    return Cutting(write, encode, first, last, config.sequence, vocabulary, config.on_answers)


def _ends(part: Tokenised, name: str) -> tuple[int, ...]:
    """Return the tokens that end a generated answer: the end of text, and what most answers end with."""
    last = hub.end_of_text(hub.tokenizer(name))
    return tuple(sorted({*part.ends[:1], *([] if last is None else [last])}))


def _written_out(name: str, context: TaskContext) -> bool:
    from fedsim.training.direct.targets import known_to_train

    return known_to_train(name, context.lora, context.numerics.training) is not None


def _dealt(
    config: LanguageSettings, context: TaskContext, texts: Examples, part: Tokenised, apart: dict[str, int]
) -> _Dealt:
    """Deal the training examples to the clients, hold some out, and pack the others if they are to be packed."""
    seed, clients = context.seed, context.clients
    number = {name: i for i, name in enumerate(dict.fromkeys(texts.owners))}
    owners = np.array([number[name] for name in texts.owners], dtype=np.int64)
    labels, facts = _labels(config, texts, seed)
    blocks = Blocks(np.ones(len(texts), dtype=np.int64), labels, owners)
    share, moved = partition(
        config.partition, blocks, clients, LEAST, stream(seed, "partition"), unit="examples"
    )
    plain, _ = partition(Iid(), blocks, clients, LEAST, stream(seed, "partition", "iid"), unit="examples")
    of_owners, notices = said_of_owners(config.partition, blocks, share, "examples")
    facts |= of_owners | {"moved_examples": moved, "train_examples": len(texts)}
    if labels is not None:
        every = np.bincount(labels)
        for name, shares in (("class_divergence_bits", share), ("class_divergence_iid_bits", plain)):
            facts[name] = divergence_bits(
                (np.bincount(labels[m], minlength=every.size) for m in shares), every
            )
    last = config.holdout_from == "last"
    if last:
        timed = config.time_column is not None
        share = last_at_the_end(share, blocks.sizes, owners, config.holdout, None, timed=timed)
    splits = Splits.dealt(share, config.holdout, apart, seed, last=last)
    if not config.pack:
        return _Dealt(Held(part.sequences, part.asked), splits, facts, notices)
    packs, training = packed(part.sequences, splits.training)
    singles = part.sequences[splits.held_out.rows]
    held_out = Ragged(np.arange(len(singles)) + len(packs), splits.held_out.stops)
    asked = np.concatenate([np.full(len(packs), -1), part.asked[splits.held_out.rows]])
    facts |= {"packed_examples": len(splits.training.rows), "packs": len(packs)}
    held = Held(joined([packs, singles]), asked)
    return _Dealt(held, replace(splits, training=training, held_out=held_out), facts, notices)


def _labels(config: LanguageSettings, texts: Examples, seed: int) -> tuple[Ints | None, Facts]:
    """Return the classes that the partition needs, and what is said about them."""
    how = config.partition
    if not isinstance(how, Dirichlet | Pathological):
        return None, {}
    if how.over == "label" and texts.labels is None:
        fix = "set task.label_column, or partition over topics"
        raise DataError(message("task.partition.over", "the data have no labels", got=how.over, fix=fix))
    if how.over != "topics" and texts.labels is not None:
        names, labels = np.unique(texts.labels, return_inverse=True)
        facts: Facts = {
            "classes_from": "labels",
            "classes": len(names),
            "class_names": [str(n) for n in names],
        }
        return labels.astype(np.int64), facts
    labels, heaviest = topics(texts.texts.texts, how.topics, seed_of(seed, "topics"))
    facts = {"classes_from": "topics (TF-IDF, k-means)", "classes": how.topics, "class_names": heaviest}
    return labels, facts


def _left_out(part: Tokenised, split: str, most: int) -> list[str]:
    """Return what is said of examples that were cut, and of those that were left out."""
    said = []
    if part.cut:
        said.append(
            f"{part.cut} of {len(part.kept) + part.lost + part.empty} examples of {split} are longer than {most} tokens: cut"
        )
    if part.lost:
        said.append(
            f"{part.lost} of those have no answer left and are left out: set task.sequence to more tokens"
        )
    if part.empty:
        said.append(f"{part.empty} examples of {split} have no answer and are left out")
    return said


def _facts(
    config: LanguageSettings, splits: dict[str, Examples], parts: dict[str, Tokenised], vocabulary: int
) -> Facts:
    train = parts["train"]
    file = config.chat_template
    return {
        "model": config.model,
        "vocabulary": vocabulary,
        "corpus": config.data,
        "corpus_sha256": digest(splits),
        "format": config.format,
        "loss_on": "answers" if config.on_answers else "all",
        "chat_template": None
        if config.format == "completion"
        else "the tokenizer's"
        if file is None
        else Path(file).name,
        "sequence": config.sequence,
        "partition": config.partition.kind,
        "train_tokens": int(train.sequences.counts.sum()),
        "train_learned_tokens": int(train.sequences.answers.sum()),
        "cut_examples": {split: part.cut for split, part in parts.items()},
        "lost_examples": {split: part.lost + part.empty for split, part in parts.items()},
    }
