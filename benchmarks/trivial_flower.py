"""`python trivial_flower.py --out FILE --clients 100 --rounds 6`: trivial updates through Flower's engine."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.w1.recipe import Report

MATRICES = ((128, 384), (128, 128), (512, 128)) * 4


def client_app() -> ClientApp:
    """Return the app that adds one to every array."""
    app = ClientApp()

    @app.train()  # type: ignore[untyped-decorator]
    def _train(message: Message, _context: Context) -> Message:
        arrays = [array + np.float32(1.0) for array in message.content["arrays"].to_numpy_ndarrays()]
        content = {
            "arrays": ArrayRecord.from_numpy_ndarrays(arrays),
            "metrics": MetricRecord({"num-examples": 1}),
        }
        return Message(content=RecordDict(content), reply_to=message)

    return app


class Timed(FedAvg):  # type: ignore[misc]
    """FedAvg that notes the end of each round."""

    def __init__(self, report: Report, **options: Any) -> None:
        super().__init__(**options)
        self.report = report

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """Average, and note the time."""
        outcome = super().aggregate_train(server_round, replies)
        if outcome[0] is None:
            raise SystemExit("every client failed")
        self.report.trained()
        self.report.aggregated()
        return outcome


def server_app(rounds: int, report: Report) -> ServerApp:
    """Return the app that runs the rounds."""
    app = ServerApp()

    @app.main()  # type: ignore[untyped-decorator]
    def _main(grid: Grid, _context: Context) -> None:
        shapes = [shape for wide, out in MATRICES for shape in ((8, wide), (out, 8))]
        start = ArrayRecord.from_numpy_ndarrays([np.zeros(shape, np.float32) for shape in shapes])
        strategy = Timed(report, fraction_train=1.0, fraction_evaluate=0.0)
        result = strategy.start(grid=grid, initial_arrays=start, num_rounds=rounds)
        report.losses = [float(np.mean(result.arrays.to_numpy_ndarrays()[0]))]

    return app


def main() -> None:
    """Run the simulation and write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", required=True)
    parser.add_argument("--clients", type=int, required=True)
    parser.add_argument("--rounds", type=int, required=True)
    asked = parser.parse_args()
    report = Report()
    run_simulation(
        server_app=server_app(asked.rounds, report),
        client_app=client_app(),
        num_supernodes=asked.clients,
        backend_config={
            "init_args": {"num_cpus": 2, "log_to_driver": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    report.checksum = float(asked.clients * asked.rounds)
    report.save(asked.out)


if __name__ == "__main__":
    main()
