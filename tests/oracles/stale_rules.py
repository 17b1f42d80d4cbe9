"""Rules over the factors in buffered runs, written a second time: from the rows of the table of visits alone.

Every visit of the quadratic task takes its free numbers from x to c + left (x - c). Discounts are (1 + staleness)^-1/2.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

MIXING = 0.6
"""FedAsync's rate."""


@dataclass
class Replayed:
    """The shared vector after the last commit, and what each client of FedSA keeps for itself."""

    vector: np.ndarray
    own: dict[int, np.ndarray] = field(default_factory=dict)


def replayed(visits, task, kind, *, left, drop=False, by_weights=False):
    """Replay the commits of a run.

    Args:
        visits: the table of a run in which every client has all ranks and the scale of the server.
        task: the quadratic task with one matrix of rank 4.
        kind: of the rule.
        left: what a visit leaves of a gap.
        drop: RoLoRA leaves out updates of the other phase.
        by_weights: the sum is divided by the sum of its weights, not by their number.
    """
    rows = visits[visits.committed_version > 0].sort_values(["committed_version", "client", "visit"])
    is_a = task.layout.slots(None, "A")
    models, own, owns = [task.initial().astype(np.float64)], {}, {0: {}}
    for version in range(1, int(rows.committed_version.max()) + 1):
        x, step, total = models[-1], np.zeros(task.layout.size), 0.0
        for row in rows[rows.committed_version == version].itertuples():
            phase = phase_of(kind, row.version)
            start = models[row.version].copy()
            if kind == "fedsa":
                start = np.where(is_a, start, owns[row.version].get(row.client, 0.0))
            end = moved(
                start, task.optima[row.client], (is_a & ("A" in phase)) | (~is_a & ("B" in phase)), left
            )
            share = (1 + row.staleness) ** -0.5
            if kind == "mixing":
                x = (1 - MIXING * share) * x + MIXING * share * end
                continue
            if kind == "hetlora":
                share *= norm_of_product(task.layout, end)
            if kind == "fedsa":
                own = {**own, row.client: end}
                end = np.where(is_a, end, start)
            if not (drop and phase != phase_of(kind, version - 1)):
                step += share * (end - start)
                total += share if by_weights or kind == "hetlora" else 1.0  # FedBuff divides by the number
        models.append(x + (step / total if total else 0.0))
        owns[version] = own
    return Replayed(models[-1], own)


def phase_of(kind, version):
    """The factors that a visit of a version moves: RoLoRA begins with B."""
    return "AB"[(version + 1) % 2] if kind == "rolora" else {"ffa": "B"}.get(kind, "AB")


def moved(start, optimum, free, left):
    """Where training ends: free numbers have a gap of `left` times what it was."""
    return np.where(free, optimum + left * (start - optimum), start)


def norm_of_product(layout, vector):
    """|B A| of the one matrix."""
    arrays = layout.arrays(vector)
    return float(np.linalg.norm(arrays["w.lora_B"] @ arrays["w.lora_A"]))
