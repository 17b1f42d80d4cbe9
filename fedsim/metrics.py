"""Which way a metric is better, by its name."""

from __future__ import annotations

RISING = ("accuracy", "similarity", "f1", "bleu", "rouge", "auc", "share of the clients' classes")
"""Words in the name of a metric that is better when larger; all others are better when smaller."""


def rises(metric: str) -> bool:
    """Tell whether larger values of a metric are better.

    >>> rises("perplexity"), rises("accuracy")
    (False, True)
    """
    return any(word in metric for word in RISING)
