"""The columns of tables of devices: those that say how fast they train, and measured speeds."""

from __future__ import annotations

from fedsim.config.classes import CLASSES
from fedsim.files.user_tables import Column

SPEEDS = ("eff_lora_lo_gflop_per_s", "eff_lora_gflop_per_s", "eff_lora_hi_gflop_per_s")
GFLOPS, GB = "10^9 FLOP/s", "10^9 bytes"
LEAST, MOST = 1e-6, 1e6
"""What a figure of a device is at least, where it is not 0, and at most: from 1 kB to a petabyte, from a microwatt to a megawatt."""
MOST_GFLOPS, MOST_SHARE = 1e9, 1e12
"""An exaflop a second: no device of one client has that. Shares may be counts of people, and sums of them are exact."""

NAME = Column("device", "key", meaning="name of the row, once in the table", usual="my-phone")
TIER = Column(
    "class",
    "text",
    choices=tuple(CLASSES),
    meaning="kind of device, the tier in every table of a run",
    usual="phone-mid",
)
RAM = Column(
    "ram_gb", positive=True, low=LEAST, high=MOST, unit=GB, meaning="memory of the device", usual="8"
)
BANDWIDTH = Column(
    "memory_bandwidth_gb_per_s",
    positive=True,
    low=LEAST,
    high=MOST,
    unit=f"{GB}/s",
    meaning="peak of the memory that trains; 15 of slow phones, 60 of fast ones, 100 of laptops, 1,000 of cards",
    usual="25.6",
)
POWER = (
    Column(
        "train_w",
        positive=True,
        low=LEAST,
        high=MOST,
        unit="W",
        meaning="of the whole device while training; 3 to 6 of phones, 20 to 60 of laptops",
        usual="4.2",
    ),
    Column("idle_w", low=0.0, high=MOST, unit="W", meaning="of the whole device while idle", usual="0.45"),
    Column(
        "battery_wh",
        low=0.0,
        high=MOST,
        unit="Wh",
        meaning="capacity; 12 to 20 of phones, 0: on the mains",
        usual="15.4",
    ),
)
SPEED_COLUMNS_OF_A_DEVICE = tuple(
    Column(name, positive=True, low=LEAST, high=MOST_GFLOPS, unit=GFLOPS, meaning=meaning, usual=usual)
    for name, meaning, usual in zip(
        SPEEDS,
        (
            "p5 of the effective speed of LoRA training",
            "effective speed of LoRA training at 4 FLOPs a parameter and token, the median; 3 to 50 of phones",
            "p95 of it",
        ),
        ("6", "10", "16"),
        strict=True,
    )
)
DEVICE_COLUMNS = (NAME, TIER, *SPEED_COLUMNS_OF_A_DEVICE, RAM, BANDWIDTH, *POWER)
OPTIONAL_DEVICE_COLUMNS = (
    Column(
        "cpu_quota", positive=True, low=1e-3, high=1.0, meaning="share of a CPU that the device is", usual="1"
    ),
    Column(
        "cpu_period_ms",
        positive=True,
        low=1e-2,
        high=MOST,
        unit="ms",
        meaning="how often that share is given out",
        usual="100",
    ),
)
"""A device that is a share of a CPU: the speed is then that of a second of CPU; 1 and 100 without them."""
SPEED_COLUMNS = (
    Column("device", "text", meaning="a row of the device table", usual="my-phone"),
    Column("model", "text", meaning="a preset of charge_as, or the model that trains", usual="gemma-3-270m"),
    Column("stack", "text", meaning="software and weight format", usual="cpp"),
    Column(
        "tokens_per_s",
        positive=True,
        low=LEAST,
        high=MOST_GFLOPS,
        unit="1/s",
        meaning="measured, while training",
        usual="3.0",
    ),
    Column(
        "gflop_per_token",
        positive=True,
        low=LEAST,
        high=MOST_GFLOPS,
        unit="10^9 FLOP",
        meaning="of what was measured; 4 times the parameters in 10^9",
        usual="1.07",
    ),
)
SHARE_COLUMN = Column(
    "share",
    low=0.0,
    high=MOST_SHARE,
    meaning="how often the row occurs, in any unit: only ratios count",
    usual="1",
)
