"""Every type of model that transformers calls causal, tiny and random: trained, scored and saved, or refused in a sentence."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from worlds import causal_models

from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.errors import FedsimError
from fedsim.jobs import Job, TaskContext
from fedsim.metrics.sums import add_sums
from fedsim.tasks.language import Language
from fedsim.training import hub

FEW = (
    "bert", "falcon_h1", "gemma3", "gpt_neox", "mamba", "mamba2", "mixtral", "mpt", "phimoe", "qwen3", "rwkv", "xlnet",
)  # fmt: skip
"""One of each family of faults; the others take minutes."""
LOOK_AHEAD = {"bert", "xlnet"}
LOCAL = LocalConfig(lr=1e-2, steps=1, batch=2)
LORA = LoraConfig(r=2, alpha=4.0)


def trained_and_saved(name, text, folder):
    """Train two clients for a step, score, save; the adapter is then stock PEFT's, with the same loss."""
    context = TaskContext(2, 0, LORA, LOCAL, NumericsConfig(client_batch=2))
    task = Language(model=name, data=str(text), sequence=16).build(context)
    task.warm()
    start = task.initial()
    updates = task.train([Job(client, 0, start, LOCAL, 0) for client in range(2)])
    for update in updates:
        assert update.fault(task.layout.size) is None
        assert np.isfinite(update.loss)
    assert not np.array_equal(updates[0].end, start)
    sums = add_sums([task.score(updates[0].end, probe) for probe in task.probes("test", 4)])
    loss = task.metrics(sums)["loss"]
    task.save_adapter(updates[0].end, folder)
    assert abs(stock_loss(name, folder, task) - loss) <= 1e-4 * loss


def stock_loss(name, folder, task):
    from peft import PeftModel

    model = PeftModel.from_pretrained(hub.weights(name), folder).eval()
    rows = task.rows("test", None)[:4]
    tokens = torch.from_numpy(task.test.tokens[rows].astype(np.int64))
    with torch.no_grad():
        logits = model(input_ids=tokens[:, :-1], use_cache=False).logits.float()
    nll = torch.nn.functional.cross_entropy(logits.transpose(1, 2), tokens[:, 1:], reduction="none")
    real = (
        torch.arange(nll.shape[1])[None] < torch.from_numpy(task.test.counts[rows].astype(np.int64))[:, None]
    )
    return float(nll[real].mean())


def works_or_is_refused(kind, tmp_path, tokenizer, text_folder):
    """Return whether it works; None: its own configuration cannot be made so small."""
    name = causal_models.folder(tmp_path / "model", kind, tokenizer)
    if name is None:
        return None
    refusal = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trained_and_saved(name, text_folder / "tiny.train.txt", tmp_path / "adapter")
    except FedsimError as problem:
        refusal = problem
    if refusal is not None:
        assert refusal.exit_code == 2
        assert refusal.message.fix
        assert "\n" not in refusal.message.headline
    return refusal is None


@pytest.mark.parametrize("kind", FEW)
def test_a_family_works_or_is_refused(kind, tmp_path, tokenizer, text_folder):
    assert works_or_is_refused(kind, tmp_path, tokenizer, text_folder) == (kind not in LOOK_AHEAD)


@pytest.mark.slow
@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", causal_models.types())
def test_every_type_works_or_is_refused(kind, tmp_path, tokenizer, text_folder):
    if works_or_is_refused(kind, tmp_path, tokenizer, text_folder) is None:
        pytest.skip("its own configuration cannot be made so small")
