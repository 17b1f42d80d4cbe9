"""Stock PEFT in a plain loop: the floor that a simulator's overhead is counted from.

`python stock.py --world DIR --out FILE --rounds 6 --processes 2 --threads 1`: each process holds one
model and trains its share of a round's clients; the parent only averages.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
from multiprocessing.connection import Connection
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.w1.recipe import Report, Schedule, Vector, build, read, train, trainable, write


class Trainer:
    """One model, kept; trains every `stride`-th client of a round."""

    def __init__(self, world: str, rank: int, stride: int, threads: int) -> None:
        import torch

        torch.set_num_threads(threads)
        self.schedule = Schedule(world)
        self.rank, self.stride = rank, stride
        self.model = build(world)
        self.parameters = trainable(self.model, self.schedule.names)

    def round(self, number: int, start: Vector, report: Report) -> tuple[NDArray[np.float64], list[float]]:
        """Return the weighted sum of this process's clients, and their losses."""
        tokens, weights = self.schedule.tokens[number], self.schedule.weights[number]
        total, losses = np.zeros(start.size), []
        for i in range(self.rank, len(tokens), self.stride):
            write(self.parameters, start)
            losses.append(train(self.model, self.parameters, tokens[i]))
            total += weights[i] * read(self.parameters).astype(np.float64)
            report.trained()
        return total, losses


def serve(pipe: Connection, world: str, rank: int, stride: int, threads: int) -> None:
    """Train rounds on request until told to stop."""
    trainer, report = Trainer(world, rank, stride, threads), Report()
    while (asked := pipe.recv()) is not None:
        number, start = asked
        pipe.send((*trainer.round(number, start, report), report.first_update_s))


def main() -> None:
    """Run the rounds and write the report."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(asked.threads)
    schedule, report = Schedule(asked.world), Report()
    vector = schedule.initial
    pipes: list[Any] = []
    trainer = None
    if asked.processes == 1:
        trainer = Trainer(asked.world, 0, 1, asked.threads)
    context = multiprocessing.get_context("spawn")
    for rank in range(asked.processes if trainer is None else 0):
        ours, theirs = context.Pipe()
        work = (theirs, asked.world, rank, asked.processes, asked.threads)
        context.Process(target=serve, args=work, daemon=True).start()
        pipes.append(ours)
    for number in range(asked.rounds):
        if trainer is not None:
            answers = [(*trainer.round(number, vector, report), report.first_update_s)]
        else:
            for pipe in pipes:
                pipe.send((number, vector))
            answers = [pipe.recv() for pipe in pipes]
        total = np.sum([part for part, _, _ in answers], axis=0) / schedule.weights[number].sum()
        vector = total.astype(np.float32)
        report.first_update_s = min(first for _, _, first in answers)
        report.losses.append(float(np.mean([one for _, losses, _ in answers for one in losses])))
        report.aggregated()
    for pipe in pipes:
        pipe.send(None)
    report.summed(vector)
    report.save(asked.out)


if __name__ == "__main__":
    main()
