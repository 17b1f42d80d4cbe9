"""Which way a metric is better: a table of names."""

from __future__ import annotations

import re
from typing import Literal

Better = Literal["more", "less", "neither"]

SAMPLES_DRAWN = "samples drawn"
"""Metric that counts the images that a score of samples was taken of."""
CLIENTS_CLASSES = "share of the clients' classes"
"""Metric that says how many of the samples a classifier takes for one of the clients' classes."""

DECLARED: tuple[tuple[str, Better], ...] = (
    (CLIENTS_CLASSES, "more"),
    (r"(.*[\W_])?(accuracy|similarity|f1|bleu|rouge|auc|exact_match)([\W_].*)?", "more"),
    (SAMPLES_DRAWN, "neither"),
    (r"share of .*", "neither"),
    (r".* of test images", "neither"),
)
"""(names of metrics as a regular expression, which values of them are better), the first that fits; `neither` is
scored for information. Of all others less is better, as of a loss or a distance."""


def better(metric: str) -> Better:
    """Return which values of a metric are better.

    >>> better("perplexity"), better("token_accuracy"), better("share of frog"), better("cauchy_loss")
    ('less', 'more', 'neither', 'less')
    """
    return next((values for names, values in DECLARED if re.fullmatch(names, metric)), "less")


def rises(metric: str) -> bool:
    """Tell whether larger values of a metric are better."""
    return better(metric) == "more"


def ranks(metric: str) -> bool:
    """Tell whether one value of a metric is better than another."""
    return better(metric) != "neither"
