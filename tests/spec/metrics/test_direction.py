"""Which values of a metric are better follows from its name, word by word."""

from __future__ import annotations

import pytest

from fedsim.metrics.direction import SAMPLES_DRAWN, better, ranks, rises


@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("accuracy", "more"),
        ("token_accuracy", "more"),
        ("accuracy (top 5)", "more"),
        ("f1", "more"),
        ("perplexity", "less"),
        ("loss", "less"),
        ("cauchy_loss", "less"),  # no auc
        ("FD(digits-cnn)", "less"),
        ("FD(digits-cnn) of test images", "neither"),
        ("share of frog", "neither"),
        ("share of the clients' classes", "more"),
        (SAMPLES_DRAWN, "neither"),
    ],
)
def test_the_words_of_a_name_say_which_values_are_better(metric, values):
    assert better(metric) == values
    assert rises(metric) == (values == "more")
    assert ranks(metric) == (values != "neither")
