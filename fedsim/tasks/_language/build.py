"""From a configuration to a language task: tokens, blocks, clients, windows, and the facts about them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fedsim.adapters.adapter import Layout
from fedsim.arrays import Ints
from fedsim.cost.quantised import Quantise
from fedsim.cost.shape import ModelShape
from fedsim.errors import DataError, message
from fedsim.jobs import TaskContext
from fedsim.rng import seed_of, stream
from fedsim.tasks._language.blocks import Cut, blocks_of, grouped, in_runs, places
from fedsim.tasks._language.kept_tokens import tokenised
from fedsim.tasks._language.settings import LanguageSettings
from fedsim.tasks._language.task import LanguageTask
from fedsim.tasks._language.text import Source, digest, read
from fedsim.tasks._language.tokens import (
    FITTING,
    Stream,
    Windows,
    full,
    joined,
    lines,
    whole,
)
from fedsim.tasks._language.topics import divergence_bits, topics
from fedsim.tasks._language.units import Texts
from fedsim.tasks._natural.last import last_at_the_end, said_of_owners
from fedsim.tasks._splits import Ragged, Splits
from fedsim.tasks.partition import Blocks, Dirichlet, Iid, Natural, Pathological, partition
from fedsim.training import hub, lora, text_shape
from fedsim.training.beside.saved_adapter import check_saved
from fedsim.training.direct.targets import known_layout, known_to_train
from fedsim.training.direct.tokenizer import tokenizer_of
from fedsim.training.quantised.chosen import notices as quantised_notices

BLOCK = 512
"""Tokens of a block where there is plenty: about 25 lines of newspaper, enough to have a topic."""


AT_ONCE = 1000
"""Clients whose text is cut into windows before these are joined."""


@dataclass(frozen=True)
class Deal:
    """The training text dealt to clients.

    Attributes:
        windows: of all clients, one client after the other.
        shares: row numbers of each client's windows.
        facts: about blocks, classes and how different the clients are.
        notices: sentences about what is dealt to nobody.
    """

    windows: Windows
    shares: Ragged
    facts: dict[str, Any]
    notices: list[str]


def prepare(config: LanguageSettings, context: TaskContext) -> LanguageTask:
    """Return the task; see `Language.build`."""
    name = model_name(config)
    model = described(name, config.sequence, context, config.quantised())
    layout, vocabulary = model.layout, model.shape.vocab
    check_saved(layout, context.lora)
    corpus = read(_source(config))
    ordered = {key: grouped(texts) for key, texts in corpus.splits.items()}
    splits = {key: texts for key, (texts, _) in ordered.items()}
    streams, first = _tokens(model.tokenizer, splits, vocabulary)
    deal = _dealt(config, context, ordered["train"], streams["train"], first)
    test = whole(streams["test"], config.sequence, first)
    valid = whole(streams["valid"], config.sequence, first) if "valid" in streams else None
    notices = [*corpus.notices, *model.notices, *deal.notices]
    apart = {"test": len(test), "valid": 0 if valid is None else len(valid)}
    return LanguageTask(
        model=name,
        lora=context.lora,
        numerics=context.numerics,
        gpus_per_worker=context.gpus_per_worker,
        seed=context.seed,
        training_seed=context.first_seed,
        layout=layout,
        shape=model.shape,
        splits=Splits.dealt(
            deal.shares, config.holdout, apart, context.seed, last=config.holdout_from != "windows"
        ),
        facts=_facts(config, splits, streams["train"], vocabulary)
        | deal.facts
        | ({"notices": notices} if notices else {}),
        cache_bytes=context.cache_bytes,
        windows=deal.windows,
        test=test,
        valid=valid,
        quantise=config.quantised(),
    )


def _tokens(tokenizer: Any, splits: dict[str, Texts], vocabulary: int) -> tuple[dict[str, Stream], int]:
    """Return the tokens of each split, and the one that a window without context begins with."""
    eos = hub.end_of_text(tokenizer)
    assert eos is not None
    first = eos if tokenizer.bos_token_id is None else int(tokenizer.bos_token_id)
    for kind, number in (("end-of-text", eos), ("beginning-of-text", first)):
        if not 0 <= number < vocabulary:
            token = tokenizer.convert_ids_to_tokens(number)
            what = f"the tokenizer's {kind} token {token!r} is number {number}, the model knows {vocabulary}"
            raise DataError(message("task.model", what, fix=FITTING))
    return {key: tokenised(tokenizer, texts.texts, eos, vocabulary) for key, texts in splits.items()}, first


def _dealt(
    config: LanguageSettings, context: TaskContext, ordered: tuple[Texts, Ints], train: Stream, first: int
) -> Deal:
    """Cut the training text into blocks, deal them to the clients, and cut each client's into windows."""
    minimum, clients, seed = 2 * config.sequence, context.clients, context.seed
    size = max(minimum, min(max(BLOCK, 4 * config.sequence), train.tokens.size // (16 * clients)))
    how, texts = config.partition, ordered[0]
    whole_cut = blocks_of(texts, train, size, minimum, ordered[1])
    capped, over = whole_cut.latest(how.most if isinstance(how, Natural) else None)
    cut, facts = _labelled(capped, config, texts, train, context)
    blocks = Blocks(cut.sizes, cut.labels, cut.owners)
    share, repaired = partition(how, blocks, clients, minimum, stream(seed, "partition"))
    plain, _ = partition(Iid(), blocks, clients, minimum, stream(seed, "partition", "iid"))
    of_owners, notices = said_of_owners(how, blocks, share, "tokens", over)
    facts |= of_owners | {
        "repaired_blocks": repaired,
        "blocks": int(blocks.sizes.size),
        "token_divergence_bits": _token_divergence(cut, share, train),
        "token_divergence_iid_bits": _token_divergence(cut, plain, train),
    }
    if blocks.labels is not None:
        facts["class_divergence_bits"] = _class_divergence(blocks, share)
        facts["class_divergence_iid_bits"] = _class_divergence(blocks, plain)
    share = _for_holding_out(config, cut, share, seed, timed=texts.times is not None)
    windows, rows = _windows(share, cut, train, config.sequence, first)
    return Deal(windows, rows, facts, notices)


def _for_holding_out(config: LanguageSettings, cut: Cut, share: Ragged, seed: int, *, timed: bool) -> Ragged:
    """Return each client's blocks in the order of its text, whose end is held out."""
    if config.holdout_from == "runs":
        return share.changed(lambda client, numbers: in_runs(cut, numbers, stream(seed, "runs", client)))
    if config.holdout_from == "last":
        return last_at_the_end(share, cut.sizes, cut.owners, config.holdout, cut.when, timed=timed)
    return share


def _windows(share: Ragged, cut: Cut, train: Stream, sequence: int, first: int) -> tuple[Windows, Ragged]:
    """Cut each client's text into windows; return those of all, and the row numbers of each client's."""
    windows, counts = [], []
    for at in range(0, len(share), AT_ONCE):
        parts = [full(train, places(cut, numbers), sequence, first) for numbers in share[at : at + AT_ONCE]]
        windows.append(joined(parts))
        counts += [len(part) for part in parts]
    stops = np.cumsum(counts)
    return joined(windows), Ragged(np.arange(stops[-1]), stops)


def _facts(
    config: LanguageSettings, splits: dict[str, Texts], train: Stream, vocabulary: int
) -> dict[str, Any]:
    return {
        "model": config.model,
        "vocabulary": vocabulary,
        "corpus": config.data,
        "corpus_sha256": digest(splits),
        "newline": config.newline,
        "sequence": config.sequence,
        "partition": config.partition.kind,
        "train_words": int(train.words.sum()),
        "train_tokens": int(train.tokens.size),
    }


def _source(config: LanguageSettings) -> Source:
    return Source(
        config.data,
        config.data_config,
        config.data_revision,
        config.text_column,
        config.client_column,
        config.label_column,
        config.time_column,
        config.newline,
    )


def model_name(config: LanguageSettings) -> str:
    """Return the folder or hub name of a task's model."""
    if config.model != "builtin":
        return config.model
    from fedsim.builtin import model_folder

    return str(model_folder())


@dataclass(frozen=True)
class Described:
    """What is known of a model without its weights, after the checks that need none."""

    layout: Layout
    shape: ModelShape
    tokenizer: Any
    notices: list[str]


def described(name: str, sequence: int, context: TaskContext, quantise: Quantise | None = None) -> Described:
    """Return what a model is; without transformers where its folder says it all."""
    made = known_to_train(name, context.lora, context.numerics.training)
    if made is not None:
        hub.check_weights(name)
        hub.refuse_longer(made.positions, sequence)
        layout = known_layout(made, context.lora)
        shape = text_shape.shape_of(made, name, layout, sequence, context.local.batch, quantise)
        tokenizer = tokenizer_of(Path(name)) or hub.tokenizer(name)
        return Described(layout, shape, tokenizer, quantised_notices(shape, quantise))
    skeleton = hub.skeleton(name)
    hub.check_weights(name)
    hub.check_sequence(name, sequence)
    layout = lora.layout(skeleton, context.lora)
    shape = text_shape.shape(skeleton, name, layout, sequence, context.local.batch, quantise)
    said = [*text_shape.notices(skeleton, layout), *quantised_notices(shape, quantise)]
    return Described(layout, shape, hub.tokenizer(name), said)


def _labelled(
    cut: Cut, config: LanguageSettings, texts: Texts, row: Stream, context: TaskContext
) -> tuple[Cut, dict[str, Any]]:
    """Return the blocks with the classes that the partition needs, and what is said about them."""
    how = config.partition
    if not isinstance(how, Dirichlet | Pathological):
        return cut, {}
    if how.over == "label" and cut.labels is None:
        fix = "set task.label_column, or partition over topics"
        raise DataError(message("task.partition.over", "the data have no labels", got=how.over, fix=fix))
    if how.over != "topics" and cut.labels is not None:
        return cut, {"classes_from": "labels", "classes": len(cut.names), "class_names": cut.names}
    text = lines(texts.texts)
    ends = np.concatenate([[0], row.ends])
    pieces = [text[ends[a] : ends[b]] for a, b in zip(cut.starts, cut.stops, strict=True)]
    labels, names = topics(pieces, how.topics, seed_of(context.seed, "topics"))
    facts = {"classes_from": "topics (TF-IDF, k-means)", "classes": how.topics, "class_names": names}
    return replace(cut, labels=labels, names=names), facts


def _token_divergence(cut: Cut, share: Ragged, row: Stream) -> float:
    vocabulary = int(row.tokens.max()) + 1
    counts = (np.bincount(row.tokens[places(cut, mine)], minlength=vocabulary) for mine in share)
    dealt = row.tokens[places(cut, np.sort(share.rows))]
    return divergence_bits(counts, np.bincount(dealt, minlength=vocabulary))


def _class_divergence(blocks: Blocks, share: Ragged) -> float:
    assert blocks.labels is not None
    count = int(blocks.labels.max()) + 1
    every = np.bincount(blocks.labels[share.rows], blocks.sizes[share.rows], minlength=count)
    return divergence_bits(
        (np.bincount(blocks.labels[m], blocks.sizes[m], minlength=count) for m in share), every
    )
