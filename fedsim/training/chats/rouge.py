"""ROUGE-L (Lin 2004, W04-1013): the F-measure of the longest common subsequence of words, by torchmetrics."""

from __future__ import annotations

from importlib.util import find_spec

from fedsim.errors import DataError, message

PACKAGE = "torchmetrics"


def check_rouge() -> None:
    """Raise a DataError if the package that computes ROUGE-L is not there."""
    if find_spec(PACKAGE) is None:
        what = f"generated answers are scored with {PACKAGE}, which is not installed"
        fix = "pip install 'fedsim-edge[generation]', or drop answers"
        raise DataError(message("evaluate.splits", what, got="answers", fix=fix))


def rouge_l(text: str, reference: str) -> float:
    """Return how near a text is to a reference, from 0 to 1."""
    from torchmetrics.functional.text.rouge import rouge_score

    return float(rouge_score(text, reference, rouge_keys="rougeL")["rougeL_fmeasure"])
