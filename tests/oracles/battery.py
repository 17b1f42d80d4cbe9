"""A battery under constant powers, in closed form: level(t) = level + (charge - load) t / capacity, cut to [0, 1]."""

import math


def level_after(battery, seconds, load_w, charge_w=0.0):
    """The level so much later."""
    moved = battery.level + (charge_w - load_w) * seconds / battery.capacity_j
    return min(max(moved, 0.0), 1.0)


def seconds_until(battery, level, load_w, charge_w=0.0):
    """How long until it is at the level; 0 if it is, inf if it never will be."""
    missing_j, net_w = (level - battery.level) * battery.capacity_j, charge_w - load_w
    if missing_j == 0:
        return 0.0
    return missing_j / net_w if missing_j * net_w > 0 else math.inf
