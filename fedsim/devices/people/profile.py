"""One client's device and link."""

from __future__ import annotations

from dataclasses import dataclass

from fedsim.devices.stacks.law import StepLaw


@dataclass(frozen=True, slots=True)
class Profile:
    """One client's device and link.

    Attributes:
        client: index in the population.
        device, tier, network: row, class and link of the tables.
        flops_per_s: effective speed of LoRA training (4 FLOPs a parameter and token).
        memory_bytes: RAM of the device.
        usable_memory_bytes: what training may take of it.
        memory_bytes_per_s: memory bandwidth.
        down_bytes_per_s, up_bytes_per_s: (mean) rate of the client's own link, headers included.
        rtt_s: round trip to the server.
        framing: bytes on the link per byte of payload.
        train_w, idle_w: power of the whole device while training, and idle.
        down_radio_w, up_radio_w: power of an active radio at no load.
        down_radio_j_per_byte, up_radio_j_per_byte: energy of each byte on top.
        battery_wh: capacity; 0: no battery.
        cpu_quota, cpu_period_s: share of a CPU that the device is, given out once a period; 1: all of it.
        tail_s, tail_w: how long the radio stays up after a transfer, and its power then.
        law: of its steps, where the population says what devices are; None: FLOPs over speed.
    """

    client: int
    device: str
    tier: str
    network: str
    flops_per_s: float
    memory_bytes: float
    usable_memory_bytes: float
    memory_bytes_per_s: float
    down_bytes_per_s: float
    up_bytes_per_s: float
    rtt_s: float
    framing: float
    train_w: float
    idle_w: float
    down_radio_w: float
    down_radio_j_per_byte: float
    up_radio_w: float
    up_radio_j_per_byte: float
    battery_wh: float
    cpu_quota: float = 1.0
    cpu_period_s: float = 0.1
    tail_s: float = 0.0
    tail_w: float = 0.0
    law: StepLaw | None = None
