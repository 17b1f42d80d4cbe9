"""What text is about, where nobody says so: k-means over TF-IDF vectors; and how unlike clients are."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedsim.arrays import Floats, Ints
from fedsim.errors import DataError, message


def topics(texts: Sequence[str], count: int, seed: int) -> tuple[Ints, list[str]]:
    """Return the topic of each text, and each topic's five heaviest words.

    Words of at least two letters, English stop words apart; sublinear TF-IDF of the 5,000 most frequent
    ones, k-means (one start, k-means++) on one thread.

    Raises:
        DataError: fewer texts than topics, or no words in them.
    """
    from sklearn.cluster import KMeans
    from sklearn.feature_extraction.text import TfidfVectorizer
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    if len(texts) < count:
        what = f"{count} topics need as many blocks of text, there are {len(texts)}"
        raise DataError(message("task.partition.topics", what, fix="ask for fewer topics, or give more text"))
    words = r"(?<![<\w])[^\W\d_]{2,}(?![>\w])"  # `<unk>` and its like are no words
    vectors = TfidfVectorizer(token_pattern=words, stop_words="english", max_features=5000, sublinear_tf=True)
    try:
        matrix = vectors.fit_transform(texts)
    except ValueError as problem:
        fix = "partition over a label column (task.label_column), or iid"
        raise DataError(
            message("task.partition", f"no topics in this text ({problem})", fix=fix)
        ) from problem
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fewer distinct blocks than topics: some topics stay empty
        clusters = KMeans(count, n_init=1, max_iter=50, random_state=seed % 2**32).fit(matrix)
    names = vectors.get_feature_names_out()
    heaviest = [" ".join(names[np.argsort(-centre)[:5]]) for centre in clusters.cluster_centers_]
    return clusters.labels_.astype(np.int64), heaviest


def divergence_bits(counts: Iterable[NDArray[Any]], pooled: NDArray[Any]) -> float:
    """Return how unlike clients are: the mean Jensen-Shannon divergence [bits, 0..1].

    Between each client's distribution (of tokens, or of classes) and that of all together. Small
    samples alone give more than 0, so compare with an iid split of the same sizes.

    Args:
        counts: one histogram a client.
        pooled: their sum.
    """
    every = pooled / pooled.sum()
    divergences = []
    for count in counts:
        distribution = count / count.sum()
        middle = (distribution + every) / 2
        divergences.append((_kl(distribution, middle) + _kl(every, middle)) / 2)
    return float(np.mean(divergences))


def _kl(p: Floats, q: Floats) -> float:
    positive = p > 0
    return float((p[positive] * [math.log2(ratio) for ratio in p[positive] / q[positive]]).sum())
