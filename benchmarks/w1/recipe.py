"""What every stock-PEFT contestant shares: model, local training, vectors in and out, and the report.

Imports nothing of fedsim, so that it runs inside the peers' own environments.
"""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LR = 1.0e-3

Vector = NDArray[np.float32]


class Schedule:
    """Who trains on what in every round, as `benchmarks.w1.world` wrote it.

    Attributes:
        tokens: (rounds, cohort, steps, batch, sequence + 1) token ids.
        weights: (rounds, cohort) training examples, the weights of FedAvg.
        initial: version 0 of the adapter as one vector.
        names: PEFT's name of every array of the vector, in its order.
    """

    def __init__(self, folder: str | Path) -> None:
        with np.load(Path(folder) / "schedule.npz") as stored:
            self.tokens = stored["tokens"]
            self.weights = stored["weights"]
            self.initial: Vector = stored["initial"]
            self.names = [str(name) for name in stored["names"]]


@lru_cache(maxsize=1)
def schedule(folder: str) -> Schedule:
    """Return a world's schedule, read once a process, as templates keep their data set."""
    return Schedule(folder)


def build(folder: str | Path) -> Any:
    """Return the backbone of a world wrapped by stock PEFT, as the usual templates do it."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM, utils

        utils.logging.disable_progress_bar()
        facts = json.loads((Path(folder) / "world.json").read_text())
        backbone = AutoModelForCausalLM.from_pretrained(Path(folder) / "model", dtype=torch.float32)
        backbone.config.use_cache = False
        lora = LoraConfig(
            task_type="CAUSAL_LM",
            r=facts["r"],
            lora_alpha=facts["alpha"],
            lora_dropout=0.0,
            target_modules=list(facts["targets"]),
            fan_in_fan_out=facts["family"] == "gpt2",
        )
        return get_peft_model(backbone, lora).train()


def trainable(model: Any, names: list[str]) -> list[Any]:
    """Return the adapter's parameters in the order of the vector."""
    named = dict(model.named_parameters())
    return [named[name] for name in names]


def write(parameters: list[Any], vector: Vector) -> None:
    """Copy a vector into the adapter."""
    import torch

    flat, at = torch.from_numpy(np.array(vector, dtype=np.float32)), 0
    with torch.no_grad():
        for p in parameters:
            p.copy_(flat[at : at + p.numel()].view(p.shape))
            at += p.numel()


def read(parameters: list[Any]) -> Vector:
    """Return the adapter as a vector of its own."""
    import torch

    vector: Vector = torch.cat([p.detach().reshape(-1) for p in parameters]).cpu().numpy()
    return vector


def loss(model: Any, rows: Any) -> Any:
    """Return the mean negative log likelihood [nats] of rows (batch, sequence + 1)."""
    import torch

    logits = model(input_ids=rows[:, :-1]).logits
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())


def train(model: Any, parameters: list[Any], batches: NDArray[Any]) -> float:
    """Make one AdamW step a batch (steps, batch, sequence + 1); return the mean loss [nats]."""
    import torch

    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)
    data = torch.from_numpy(batches.astype(np.int64)).to(parameters[0].device)
    losses = []
    for rows in data:
        optimizer.zero_grad(set_to_none=True)
        value = loss(model, rows)
        value.backward()
        optimizer.step()
        losses.append(value.detach())
    return float(torch.stack(losses).mean())


@dataclass
class Report:
    """What a contestant says of itself, as a JSON file; times are seconds since the epoch.

    Attributes:
        first_update_s: when the first client's training was done (NaN: not observed).
        rounds_s: when each round's aggregation was done.
        losses: mean training loss [nats] of each round.
        checksum: sum of the absolute values of the final adapter, in float64.
    """

    first_update_s: float = float("nan")
    rounds_s: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    checksum: float = float("nan")

    def trained(self) -> None:
        """Note the end of a client's training, if it is the first."""
        if np.isnan(self.first_update_s):
            self.first_update_s = time.time()

    def aggregated(self) -> None:
        """Note the end of a round."""
        self.rounds_s.append(time.time())

    def summed(self, vector: NDArray[Any]) -> None:
        """Note the final adapter."""
        self.checksum = float(np.abs(np.asarray(vector, dtype=np.float64)).sum())

    def save(self, path: str) -> None:
        """Write it."""
        Path(path).write_text(json.dumps(vars(self)), encoding="utf-8")
