"""The same work on Flower's simulation engine: the usual PEFT template, FedAvg over adapter arrays.

`python flower_run.py --world DIR --out FILE --rounds 6 --actors 2`: 100 nodes, a tenth of them a round,
evaluation off. The model is built anew for every message, as FlowerTune's `get_model` does. The one
departure from the template: a message says whose batches to train on, so that every contestant
trains on the same ones.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MessageType, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.simulation import run_simulation

from benchmarks.w1.recipe import Report, build, schedule, train


def client_app(world: str, first: str) -> ClientApp:
    """Return the app that trains one client a message; `first` is touched after the first one."""
    app = ClientApp()

    @app.train()  # type: ignore[untyped-decorator]
    def _train(message: Message, _context: Context) -> Message:
        import torch
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        torch.set_num_threads(1)
        model = build(world)
        set_peft_model_state_dict(model, message.content["arrays"].to_torch_state_dict())
        whose = message.content["config"]
        data = schedule(world)
        batches = data.tokens[whose["round"], whose["index"]]
        loss = train(model, [p for p in model.parameters() if p.requires_grad], batches)
        weight = float(data.weights[whose["round"], whose["index"]])
        arrays = ArrayRecord(get_peft_model_state_dict(model))
        if not Path(first).exists():
            Path(first).write_text(repr(time.time()), encoding="utf-8")
        metrics = MetricRecord({"train_loss": loss, "num-examples": weight})
        return Message(content=RecordDict({"arrays": arrays, "metrics": metrics}), reply_to=message)

    return app


class Replay(FedAvg):  # type: ignore[misc]
    """FedAvg that tells each sampled node which client of the schedule it is, and notes the time."""

    def __init__(self, report: Report, **options: Any) -> None:
        super().__init__(**options)
        self.report = report

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return one message a client."""
        chosen = super().configure_train(server_round, arrays, config, grid)
        for index, message in enumerate(chosen):
            whose = ConfigRecord({"round": server_round - 1, "index": index})
            content = RecordDict({"arrays": arrays, "config": whose})
            node = message.metadata.dst_node_id
            yield Message(content=content, message_type=MessageType.TRAIN, dst_node_id=node)

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> Any:
        """Average, and note the time."""
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None:
            raise SystemExit("every client failed")
        self.report.aggregated()
        self.report.losses.append(float(metrics["train_loss"]))
        return arrays, metrics


def server_app(world: str, rounds: int, report: Report) -> ServerApp:
    """Return the app that runs the rounds."""
    app = ServerApp()

    @app.main()  # type: ignore[untyped-decorator]
    def _main(grid: Grid, _context: Context) -> None:
        from peft import get_peft_model_state_dict

        data = schedule(world)
        shapes = {k: v.shape for k, v in get_peft_model_state_dict(build(world)).items()}
        names = [name.replace(".default", "") for name in data.names]
        arrays, at = {}, 0
        for name in names:
            size = int(np.prod(shapes[name]))
            arrays[name] = data.initial[at : at + size].reshape(shapes[name])
            at += size
        start = ArrayRecord.from_numpy_ndarrays(list(arrays.values()), keep_input=False)
        start = ArrayRecord(dict(zip(arrays, start.values(), strict=True)))
        share = data.weights.shape[1] / NODES
        strategy = Replay(report, fraction_train=share, fraction_evaluate=0.0)
        result = strategy.start(grid=grid, initial_arrays=start, num_rounds=rounds)
        final = [array.numpy().ravel() for array in result.arrays.values()]
        report.summed(np.concatenate(final))

    return app


NODES = 100


def main() -> None:
    """Run the simulation and write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--actors", type=int, default=2)
    asked = parser.parse_args()
    report, first = Report(), Path(asked.out).with_suffix(".first")
    first.unlink(missing_ok=True)
    run_simulation(
        server_app=server_app(asked.world, asked.rounds, report),
        client_app=client_app(asked.world, str(first)),
        num_supernodes=NODES,
        backend_config={
            "init_args": {"num_cpus": asked.actors, "log_to_driver": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )
    report.first_update_s = float(first.read_text(encoding="utf-8"))
    report.save(asked.out)


if __name__ == "__main__":
    main()
