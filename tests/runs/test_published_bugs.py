"""Bugs that published codes of asynchronous servers have, and that are not here."""

import numpy as np
import pytest
from worlds.by_hand import FEDBUFF, Q, gaps, losses


def stale_trace():
    """Two clients with one optimum, of 1 s and 2.5 s, buffer 1: commits by 0, 0, 1 (of version 0), 0."""
    return {"kind": "buffered", "concurrency": 2, "buffer": 1}, [1.0, 2.5]


def test_moves_are_of_the_snapshot_and_not_of_the_present_model():
    """FADAS's and APPFL's code take the client's end from the server's present model."""
    protocol, train_s = stale_trace()
    first = 4 * Q
    second = first * Q
    ours = second - 4 * (1 - Q)  # client 1 moved from the gap 4, and the model has moved meanwhile
    theirs = 4 * Q

    found = losses(protocol, train_s, aggregator=FEDBUFF, budget={"commits": 3})

    assert found == gaps(4, first, second, ours)
    assert found[3] != pytest.approx(0.5 * theirs**2, rel=1e-2)


def test_mixing_keeps_its_alpha_to_the_last_commit():
    """Plato multiplies alpha by s(tau) for good: after n commits of staleness 1 it is alpha 2^(-n / 2)."""
    n = 30  # two clients in turn: each has missed the other's commit
    online = [[(0.0, 1e6)], [(0.5, 1e6)]]
    found = losses(
        {"kind": "buffered", "concurrency": 2, "buffer": 1},
        [1.0, 1.0],
        online=online,
        aggregator={"kind": "mixing", "alpha": 0.6},
        budget={"commits": n},
    )

    def loss_of_each_version(worn):
        sent, now, alpha = 4.0, 0.4 * 4.0 + 0.6 * 4.0 * Q, 0.6
        for _ in range(n - 1):
            share = alpha * 2**-0.5
            sent, now = now, (1 - share) * now + share * sent * Q
            alpha = share if worn else alpha
            yield 0.5 * now * now

    np.testing.assert_allclose(found[2:], list(loss_of_each_version(worn=False)), rtol=1e-4)
    assert list(loss_of_each_version(worn=True))[-1] > 5 * found[-1]


def test_the_hinge_has_its_one():
    """FLGo's 1 / (a (tau - b)) is 1 at tau = b + 1 for a = 1, and larger for a < 1."""
    from fedsim.aggregators._staleness import Hinge

    assert [Hinge(a=1.0, b=2)(tau) for tau in (2, 3, 4)] == [1.0, 1 / 2, 1 / 3]
    assert Hinge(a=0.1, b=2)(3) == pytest.approx(1 / 1.1)


def test_stale_updates_never_weigh_more():
    """APPFL's (tau + 1)^a grows unless a is negative; here a cannot be."""
    from fedsim.aggregators._staleness import Polynomial

    assert Polynomial(a=0.5)(8) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        Polynomial(a=-0.5)


def test_a_fresh_update_has_the_weight_one():
    """FLSim divides by s(average staleness), so s(0) is the root of 2 there."""
    from fedsim.aggregators._staleness import Constant, Hinge, Polynomial

    assert [s(0) for s in (Constant(), Hinge(), Polynomial())] == [1.0, 1.0, 1.0]


def test_buffered_sums_are_divided_by_the_buffer():
    """APPFL never divides by K: two equal moves would go twice as far."""
    protocol = {"kind": "buffered", "concurrency": 2, "buffer": 2}

    assert losses(protocol, [1.0, 1.0], aggregator=FEDBUFF, budget={"commits": 1}) == gaps(4, 4 * Q)
