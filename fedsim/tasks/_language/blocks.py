"""The training text in blocks: where each begins and ends, whose it is, what it is about, and in which order they come."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from fedsim.arrays import Ints
from fedsim.tasks._language.tokens import Stream, cuts
from fedsim.tasks._language.units import Texts
from fedsim.tasks._natural.owners import rooms


@dataclass(frozen=True)
class Cut:
    """The training text in blocks.

    Attributes:
        starts, stops: tokens [starts, stops) of each block.
        owners: whose it is.
        runs: of which run of text, all of one owner and label, it is.
        labels: what it is about; None: nobody says.
        names: of the labels.
        when: its place in the data as they were read: in time, where moments are known.
    """

    starts: Ints
    stops: Ints
    owners: Ints
    runs: Ints
    labels: Ints | None
    names: list[str]
    when: Ints

    @property
    def sizes(self) -> Ints:
        """Tokens of each block."""
        return self.stops - self.starts

    def latest(self, most: int | None) -> tuple[Cut, int]:
        """Return the last `most` tokens of each owner, and how many are left out."""
        room = rooms(self.sizes, self.owners, most, self.when)
        kept = np.flatnonzero(room)
        if kept.size == room.size and (room == self.sizes).all():
            return self, 0
        part = replace(
            self,
            starts=(self.stops - room)[kept],
            stops=self.stops[kept],
            owners=self.owners[kept],
            runs=self.runs[kept],
            labels=None if self.labels is None else self.labels[kept],
            when=self.when[kept],
        )
        return part, int(self.sizes.sum() - part.sizes.sum())


def grouped(texts: Texts) -> tuple[Texts, Ints]:
    """Bring each owner's units, and in them each label's, together; otherwise in their order.

    Returns:
        The units, and the number that each had before.
    """
    owner = {name: i for i, name in enumerate(dict.fromkeys(texts.owners))}
    keys: list[Ints] = [np.array([owner[name] for name in texts.owners])]
    if texts.labels is not None:
        keys.insert(0, np.unique(texts.labels, return_inverse=True)[1])
    order = np.lexsort(keys).astype(np.int64)
    return texts.take(order.tolist()), order


def blocks_of(texts: Texts, row: Stream, size: int, minimum: int, when: Ints) -> Cut:
    """Cut runs of text, all of one owner and label, into blocks of about `size` tokens.

    Args:
        texts: units as `grouped` gives them.
        row: their tokens.
        size: of a block, about.
        minimum: of a block; a run with less is one block.
        when: the place of each unit in the data.
    """
    owner = {name: i for i, name in enumerate(dict.fromkeys(texts.owners))}
    owners = np.array([owner[name] for name in texts.owners])
    names: list[str] = []
    labels = np.zeros(len(texts), dtype=np.int64)
    if texts.labels is not None:
        classes, labels = np.unique(texts.labels, return_inverse=True)
        names = [str(label) for label in classes]
    changes = np.flatnonzero((np.diff(owners) != 0) | (np.diff(labels) != 0)) + 1
    run_starts = np.concatenate([[0], row.stops[changes - 1]])
    run_stops = np.concatenate([row.stops[changes - 1], row.stops[-1:]])
    edges = np.array(list(cuts(run_starts, run_stops, row.stops, size, minimum)), dtype=np.int64)
    starts, stops = edges[:, 0], edges[:, 1]
    unit = np.searchsorted(row.stops, starts, side="right")
    runs = np.searchsorted(run_starts, starts, side="right")
    labelled = None if texts.labels is None else labels[unit]
    return Cut(starts, stops, owners[unit], runs, labelled, names, when[unit])


def in_runs(cut: Cut, blocks: Ints, rng: np.random.Generator) -> Ints:
    """Return a client's blocks with its runs of consecutive text in a drawn order."""
    follows = (cut.starts[blocks[1:]] == cut.stops[blocks[:-1]]) & (np.diff(cut.runs[blocks]) == 0)
    runs = np.split(blocks, np.flatnonzero(~follows) + 1)
    return np.concatenate([runs[k] for k in rng.permutation(len(runs))])


def places(cut: Cut, blocks: Ints) -> Ints:
    """Return the places of the tokens of some blocks, one block after the other."""
    return np.concatenate([np.arange(cut.starts[b], cut.stops[b]) for b in blocks])
