"""Oort's scores in plain loops, written from the paper and from what the authors' selector does (arXiv 2010.06081)."""

import math


def preferred(durations, percentile):
    """The duration at the percentile of all clients' durations, by rank, not interpolated."""
    ordered = sorted(durations)
    return ordered[min(int(len(ordered) * percentile / 100.0), len(ordered) - 1)]


def penalty(duration, at, power):
    """What a client's score is multiplied with."""
    return (at / duration) ** power if duration > at else 1.0


def scores(rewards, stamps, durations, at, *, round_, clip=0.95, ucb=0.1, power=2.0):
    """The score of every tried client: its clipped reward in the range of rewards, the bonus of old news, the penalty."""
    ordered = sorted(rewards)
    ceiling = ordered[min(int(len(ordered) * clip), len(ordered) - 1)]
    floor = 0.999 * ordered[0]
    spread = max(ordered[-1] - floor, 1e-4)
    result = []
    for reward, stamp, duration in zip(rewards, stamps, durations, strict=True):
        score = (min(reward, ceiling) - floor) / spread
        score += math.sqrt(ucb * math.log(round_) / stamp)
        result.append(score * penalty(duration, at, power))
    return result


def first_chances(sizes, durations, at, n, *, window=5.0, power=2.0):
    """The chance of each untried client to be the first one explored: size times penalty among the best `window` n."""
    worth = [size * penalty(duration, at, power) for size, duration in zip(sizes, durations, strict=True)]
    best = sorted(range(len(worth)), key=lambda i: -worth[i])[: min(int(window * n), len(worth))]
    total = sum(worth[i] for i in best)
    return [worth[i] / total if i in best else 0.0 for i in range(len(worth))]
