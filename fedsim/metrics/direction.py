"""Which way a metric is better, by its name."""

from __future__ import annotations

RISING = ("accuracy", "similarity", "f1", "bleu", "rouge", "auc", "share of the clients' classes")
"""Words in the name of a metric that is better when larger; all others are better when smaller."""

SAMPLES_DRAWN = "samples drawn"
"""Metric that counts the images that a score of samples was taken of."""

NEITHER = ("share of ", SAMPLES_DRAWN, "of test images")
"""Words in the name of what is scored for information: neither more nor less of it is better."""


def rises(metric: str) -> bool:
    """Tell whether larger values of a metric are better.

    >>> rises("perplexity"), rises("accuracy")
    (False, True)
    """
    return any(word in metric for word in RISING)


def ranks(metric: str) -> bool:
    """Tell whether one value of a metric is better than another.

    >>> ranks("loss"), ranks("share of frog"), ranks("share of the clients' classes")
    (True, False, True)
    """
    return rises(metric) or not any(words in metric for words in NEITHER)
