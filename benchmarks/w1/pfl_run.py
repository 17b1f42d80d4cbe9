"""The same work on pfl-research: `SimulatedBackend` with `FederatedAveraging`, central SGD at rate 1.

`python pfl_run.py --world DIR --out FILE --rounds 6`, alone with two threads, or under
`python -m torch.distributed.run --nproc_per_node 2`, each process with one.
"""

from __future__ import annotations

import argparse
import itertools
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam.base import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel

from benchmarks.w1.recipe import LR, Report, Schedule, build, loss, read, trainable, write


class Client(Dataset):  # type: ignore[misc]
    """A client's rows in the order of its batches; its length is its weight in the average."""

    def __init__(self, rows: torch.Tensor, weight: int) -> None:
        super().__init__((rows,))
        self.weight = weight

    def __len__(self) -> int:
        """Return the client's number of training examples."""
        return self.weight

    def iter(self, batch_size: int | None) -> Iterator[tuple[torch.Tensor]]:
        """Yield the batches of the schedule."""
        (rows,) = self.raw_data
        size = batch_size or len(rows)
        yield from ((rows[at : at + size],) for at in range(0, len(rows), size))


class Module(torch.nn.Module):  # type: ignore[misc]
    """The model with the two methods that pfl asks for."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net = net
        self.seen: list[torch.Tensor] = []

    def loss(self, rows: torch.Tensor) -> torch.Tensor:
        """Return the loss of one batch."""
        value: torch.Tensor = loss(self.net, rows)
        self.seen.append(value.detach())
        return value

    def metrics(self, rows: torch.Tensor) -> dict[str, Any]:
        """Return the loss as a metric (asked for in the first round only)."""
        with torch.no_grad():
            return {"loss": Weighted(float(loss(self.net, rows[:1])), 1)}


class Clock(TrainingProcessCallback):  # type: ignore[misc]
    """Notes the end of each round."""

    def __init__(self, report: Report, module: Module) -> None:
        self.report, self.module = report, module

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        """Note the time and this process's mean loss."""
        self.report.aggregated()
        self.report.losses.append(float(torch.stack(self.module.seen).mean()))
        self.module.seen.clear()
        return False, Metrics()


class Algorithm(FederatedAveraging):  # type: ignore[misc]
    """FedAvg that notes its first finished client."""

    def __init__(self, report: Report) -> None:
        super().__init__()
        self.report = report

    def train_one_user(self, *arguments: Any) -> Any:
        """Train, and note the time."""
        done = super().train_one_user(*arguments)
        self.report.trained()
        return done


def main() -> None:
    """Run the rounds and write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    np.random.seed(0)  # noqa: NPY002  # pfl draws its own seeds from the global generator
    schedule, report = Schedule(asked.world), Report()
    _, cohort, steps, batch, width = schedule.tokens.shape
    rows = torch.from_numpy(schedule.tokens.astype(np.int64))
    module = Module(build(asked.world))
    parameters = trainable(module.net, schedule.names)
    write(parameters, schedule.initial)
    order = itertools.cycle(range(schedule.tokens.shape[0] * cohort))

    def client(number: int) -> Client:
        mine = rows[number // cohort, number % cohort].reshape(steps * batch, width)
        return Client(mine, int(schedule.weights[number // cohort, number % cohort]))

    data = FederatedDataset(client, lambda: next(order))
    model = PyTorchModel(
        module,
        lambda params, lr: torch.optim.AdamW([p for p in params if p.requires_grad], lr=lr, weight_decay=0.0),
        torch.optim.SGD(parameters, lr=1.0),
    )
    Algorithm(report).run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=asked.rounds,
            evaluation_frequency=asked.rounds + 1,
            train_cohort_size=cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(data, data, postprocessors=[WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=1, local_learning_rate=LR, local_batch_size=batch
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=batch),
        callbacks=[Clock(report, module)],
        send_metrics_to_platform=False,
    )
    report.summed(read(parameters))
    if int(os.environ.get("RANK", "0")) == 0:
        report.save(asked.out)


if __name__ == "__main__":
    main()
