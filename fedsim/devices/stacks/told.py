"""The laws of a population for its records: one a device with its stack, instead of one a client."""

from __future__ import annotations

import numpy as np

from fedsim.arrays import Floats, Ints, Names
from fedsim.devices.stacks.software import Laws
from fedsim.records.resolved import DeviceLaw


def device_laws(device: Names, flops_per_s: Floats, laws: Laws) -> tuple[DeviceLaw, ...]:
    """Return the law of each device with each of its stacks that a client has, in the order of the tables.

    Args:
        device: names, (clients,).
        flops_per_s: with many tokens a pass, (clients,).
        laws: of the clients' steps.
    """
    pairs, first, place, count = np.unique(
        laws.pair, return_index=True, return_inverse=True, return_counts=True
    )
    speeds, launches = (_common(values, place, len(pairs)) for values in (flops_per_s, laws.launch_s))
    return tuple(
        DeviceLaw(
            device=str(device[client]),
            stack=str(laws.stack[client]),
            clients=int(count[k]),
            flops_per_s=speeds[k],
            launch_s=launches[k],
            pass_overhead_s=float(laws.pass_overhead_s[client]),
            moved_s_per_byte=1.0 / float(laws.moved_bytes_per_s[client]),
            expanded_s_per_byte=1.0 / float(laws.expanded_bytes_per_s[client]),
        )
        for k, client in enumerate(first.tolist())
    )


def _common(values: Floats, place: Ints, n: int) -> list[float | None]:
    """Return the number that all members of a group have, None where they differ."""
    low, high = np.full(n, np.inf), np.full(n, -np.inf)
    np.minimum.at(low, place, values)
    np.maximum.at(high, place, values)
    return [a if a == b else None for a, b in zip(low.tolist(), high.tolist(), strict=True)]
