"""When so many bytes are through at a rate that changes, and how many pass in a time: from step to step."""

import math


def arrival_s(rates, start_s, n_bytes, most=100_000):
    """When n bytes that start at `start_s` are through; inf if never."""
    now_s, left = start_s, float(n_bytes)
    for _ in range(most):
        rate, until_s = rates.rate(now_s), rates.next_change(now_s)
        if left <= 0:
            return now_s
        if rate > 0 and left <= rate * (until_s - now_s):
            return now_s + left / rate
        if until_s == math.inf:
            return math.inf
        left -= rate * (until_s - now_s)
        now_s = until_s
    raise AssertionError("it never ends")


def carried_bytes(rates, start_s, stop_s):
    """The integral of the rate."""
    now_s, total = start_s, 0.0
    while now_s < stop_s:
        until_s = min(rates.next_change(now_s), stop_s)
        total += rates.rate(now_s) * (until_s - now_s)
        now_s = until_s
    return total
