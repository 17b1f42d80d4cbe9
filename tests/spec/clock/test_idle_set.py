"""The counted set of idle clients is the plain set, whatever is added, dropped and asked."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.clock.online import idle_set
from fedsim.clock.online.idle_set import BLOCK, BUSY, EXCLUDED, WINDOW, IdleSet
from fedsim.rng import stream
from fedsim.samplers.uniform import Uniform

REASONS = (WINDOW, BUSY, EXCLUDED)


def plain(reasons):
    """The clients without a reason, ascending."""
    return [client for client, mine in enumerate(reasons) if not mine]


def agrees(members, reasons):
    wanted = plain(reasons)
    assert len(members) == len(wanted)
    assert members.members().tolist() == wanted
    places = np.arange(len(wanted))
    assert members.at(places).tolist() == wanted
    assert [members.at(places[k : k + 1]).tolist() for k in (0, len(wanted) // 2) if wanted] == [
        [wanted[k]] for k in (0, len(wanted) // 2) if wanted
    ]
    some = np.array([c for c in range(len(reasons)) if c % 3 == 0], dtype=np.int64)
    assert members.those_of(some[::-1]).tolist() == [c for c in wanted if c % 3 == 0]


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(("add", "drop", "set")),
        st.sampled_from(REASONS),
        st.sets(st.integers(0, 39), max_size=12),
    ),
    max_size=12,
)


@pytest.mark.parametrize("many", [1, 1000])
@given(changes=CHANGES)
def test_it_is_the_plain_set_of_clients_without_a_reason(changes, many):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(idle_set, "MANY", many)  # one by one, and all at once
        members, reasons = IdleSet(40), [set() for _ in range(40)]
        for change, reason, clients in changes:
            array = np.array(sorted(clients), dtype=np.int64)
            if change == "set":
                members.set_reason(np.isin(np.arange(40), array), reason)
            elif change == "add":
                members.add_reasons(array, reason)
            else:
                members.drop_reasons(array, reason)
            for client, mine in enumerate(reasons):
                if (change == "add" and client in clients) or (change == "set" and client in clients):
                    mine.add(reason)
                elif change == "set" or (change == "drop" and client in clients):
                    mine.discard(reason)
            agrees(members, reasons)
            for one in REASONS:
                has = members.has_reason(np.arange(40), one)
                assert has.tolist() == [one in mine for mine in reasons]


def test_the_kth_client_is_found_across_blocks_and_groups_of_blocks():
    n = 40 * BLOCK + 7
    members, out = IdleSet(n), np.zeros(n, dtype=bool)
    out[stream(0, "out").permutation(n)[: n // 2]] = True
    out[5 * BLOCK : 7 * BLOCK] = True
    members.set_reason(out, BUSY)
    wanted = np.flatnonzero(~out)
    for place in (0, 1, len(wanted) // 3, len(wanted) // 2, len(wanted) - 1):
        assert members.at(np.array([place])).tolist() == [wanted[place]]
    assert members.at(np.arange(len(wanted))).tolist() == wanted.tolist()
    client = int(wanted[-1])
    members.add_reason(client, WINDOW)
    assert client not in members
    assert len(members) == len(wanted) - 1
    with pytest.raises(IndexError):
        members.at(np.array([len(wanted) - 1]))


@given(idle=st.integers(1, 30_000), seed=st.integers(0, 5), share=st.floats(0.0, 1.0))
def test_places_are_the_clients_that_a_choice_among_all_of_them_draws(idle, seed, share):
    n = max(1, min(300, int(share * idle)))
    clients = np.arange(idle) * 3 + 1
    drawn = stream(seed, "sample", n).choice(clients, size=n, replace=False)

    assert (clients[Uniform().places(idle, n, stream(seed, "sample", n))] == drawn).all()
