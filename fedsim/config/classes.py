"""Classes of devices, and what each implies: the one table of them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DeviceClass:
    """What the class of a device implies.

    Attributes:
        usable_memory: share of RAM that training may take; the rest is the system's (estimate:
            phones and tablets kill background work early, boards and PCs do not).
        cellular: whether such devices may be on a cellular network at all.
        portable: whether they have a battery; the others are on the mains unless the tables say otherwise.
        heats: whether they have no fan, so that training makes them warm: those that `compute.thermal` applies to
            unless it names others.
    """

    usable_memory: float
    cellular: bool = False
    portable: bool = False
    heats: bool = False


_PHONE = DeviceClass(0.45, cellular=True, portable=True, heats=True)

CLASSES: dict[str, DeviceClass] = {
    "mcu": DeviceClass(0.8),
    "iot": DeviceClass(0.8),
    "sbc": DeviceClass(0.8),
    "jetson": DeviceClass(0.8),
    "phone-low": _PHONE,
    "phone-mid": _PHONE,
    "phone-high": _PHONE,
    "tablet": DeviceClass(0.45, portable=True),
    "laptop": DeviceClass(0.8, portable=True),
    "laptop-dgpu": DeviceClass(0.8, portable=True),
    "desktop": DeviceClass(0.8),
    "server": DeviceClass(0.8),
}
"""Name, as in the column `class` of a table of devices -> what it implies."""
