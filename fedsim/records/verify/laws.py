"""The seconds of whole visits where devices and their software are told apart, by the law in `run.json`: written apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from fedsim.arrays import Bools, Floats
from fedsim.records.info import Charged
from fedsim.records.resolved import DeviceLaw
from fedsim.records.run import Run

SAME_SPEED = 1e-12
"""Speeds of a law and of a client's row that are one number, up to how it was written."""


def whole_visit_s(run: Run) -> Floats:
    """Return the seconds of CPU of each client's training in a whole visit at its own rank, (clients,); NaN: not known.

    Not known where the launch cost was drawn unit by unit, or a device has several stacks that its speed does not tell apart.
    """
    clients, charged = run.clients, run.info.charged
    if charged is None or not charged.laws:
        return np.full(len(clients), np.nan)
    speed, tokens = (clients[name].to_numpy(dtype=float) for name in ("flops_per_s", "tokens"))
    launch_s, overhead_s, moving, expanding = _laws(clients["device"].tolist(), speed, charged.laws)
    work = _passes(clients["rank"].tolist(), clients["memory_plan"].tolist(), charged)
    pass_tokens, update_tokens, layer_passes, moved_bytes, update_bytes, expanded_bytes, at_once = work
    passes, updates = np.ceil(tokens / pass_tokens), np.ceil(tokens / update_tokens)
    if (at_once > 0).any():  # else it is an older run, or the tokens of a visit are declared
        passes, updates = _steps(run, charged.declared, pass_tokens, at_once)
    memory_s = (passes * moved_bytes + updates * update_bytes) * moving
    arithmetic_s = np.maximum(clients["visit_flops"].to_numpy(dtype=float) / speed, memory_s)
    issued_s = passes * layer_passes * launch_s
    both_s = np.sqrt(
        np.sqrt(
            arithmetic_s * arithmetic_s * arithmetic_s * arithmetic_s
            + issued_s * issued_s * issued_s * issued_s
        )
    )
    return np.asarray(both_s + passes * (expanded_bytes * expanding + overhead_s))


def _steps(run: Run, by_tokens: bool, pass_tokens: Floats, at_once: Floats) -> tuple[Floats, Floats]:
    """Return each client's passes and optimiser steps: no step shares a pass with another one.

    Args:
        run: with `local`, and the examples and tokens of its clients.
        by_tokens: whether examples are worth their tokens, in sequences of a declared model.
        pass_tokens: tokens of a pass at most.
        at_once: examples of a pass at most.
    """
    local = run.experiment["local"]
    examples, tokens = (run.clients[name].to_numpy(dtype=float) for name in ("examples", "tokens"))
    batch, steps, epochs = (local[name] for name in ("batch", "steps", "epochs"))
    full, rest = np.divmod(examples, batch)
    full, short = (full * 0 + steps, full * 0) if steps else (epochs * full, epochs * (rest > 0))
    total = full * batch + short * rest

    def of_step(size: Floats | float) -> Floats:
        each = size * tokens / (total * pass_tokens) if by_tokens else size / at_once
        return np.asarray(np.ceil(each))

    return full * of_step(batch) + short * of_step(rest), full + short


def _laws(devices: Sequence[str], speed: Floats, laws: Sequence[DeviceLaw]) -> Floats:
    """Return launch, overhead, and seconds a byte read and unpacked, (4, clients)."""
    names, found = np.array(devices, dtype=object), np.full((4, len(devices)), np.nan)
    by_device: dict[str, list[DeviceLaw]] = {}
    for law in laws:
        by_device.setdefault(law.device, []).append(law)
    for device, several in by_device.items():
        mine = names == device
        known = np.zeros(len(devices), dtype=np.bool_)
        for law in several:
            fits = mine if law.flops_per_s is None else mine & _same(speed, law.flops_per_s)
            launch_s = np.nan if law.launch_s is None else law.launch_s
            row = np.array([launch_s, law.pass_overhead_s, law.moved_s_per_byte, law.expanded_s_per_byte])
            unlike = known & fits & ~np.all(found == row[:, None], axis=0)
            found[:, fits & ~known] = row[:, None]
            found[:, unlike] = np.nan
            known |= fits
    return found


def _same(speed: Floats, of_law: float) -> Bools:
    return np.asarray(np.abs(speed - of_law) <= SAME_SPEED * of_law)


def _passes(ranks: Sequence[int], plans: Sequence[str], charged: Charged) -> Floats:
    """Return tokens of a pass and an update, layer passes, bytes of a pass, an update, and unpacked ones, examples, (7, clients)."""
    rows: Mapping[tuple[int, str], tuple[float, ...]] = {
        (one.rank, one.memory_plan): (
            float(one.tokens),
            float(one.update_tokens),
            one.layer_passes,
            one.moved_bytes,
            one.update_bytes,
            one.expanded_bytes,
            float(one.examples),
        )
        for one in charged.passes
    }
    unknown = (np.nan,) * 7
    return np.array([rows.get(key, unknown) for key in zip(ranks, plans, strict=True)]).T.reshape(7, -1)
