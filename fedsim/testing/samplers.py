"""What every sampler owes the server: so many different clients that are there, by the address of chance alone."""

from __future__ import annotations

import numpy as np

from fedsim.component import Component, placed
from fedsim.devices.availability import Availability
from fedsim.rng import stream
from fedsim.samplers._base import PollingSampler, Sampler
from fedsim.samplers.seen import Counts, Records, Seen
from fedsim.testing.words import fingerprint, hold, name_of

CLIENTS = 12
IDLE = np.array([0, 2, 3, 5, 6, 8, 9, 11])
WANTED = (1, 3, len(IDLE))


def check_sampler(sampler: Component) -> None:
    """Let a sampler choose among eight of twelve clients, before anything is known and when much is.

    Args:
        sampler: with the hyperparameters to try.

    Raises:
        AssertionError: a sentence that names the property.
        TypeError: the component is no sampler.
    """
    component = placed("samplers", sampler)
    if not isinstance(component, Sampler):
        raise TypeError(f"{name_of(sampler)} is no sampler")
    for seen in (seen_nothing(), seen_much()):
        for n in WANTED:
            chooses_different_idle_clients(component, seen, n)
            answers_alike_and_changes_nothing(component, seen, n)
            if isinstance(component, PollingSampler):
                keeps_some_of_its_candidates(component, seen, n)
        draws_by_address_alone(component, seen)


def seen_nothing() -> Seen:
    """Return what the server knows before its first visit."""
    return Records(
        Availability.always(CLIENTS), lambda client: 10 + client, lambda client: 30.0 + client
    ).now(0.0)


def seen_much() -> Seen:
    """Return what it knows after three commits of unequal clients, one of which never landed."""
    notes = Records(Availability.always(CLIENTS), lambda client: 10 + client, lambda client: 30.0 + client)
    for version in range(3):
        for client in range(version, CLIENTS - 1, version + 1):
            notes.ask(client)
            notes.land(client, 5.0 + 3.0 * client)
            loss = 2.0 / (1 + client % 4) + version
            notes.report(client, loss, loss**2)
        notes.commit()
    notes.ask(CLIENTS - 1)
    return notes.now(100.0)


def chosen(sampler: Sampler, seen: Seen, n: int, seed: int = 0) -> Counts:
    """Return a choice among the idle clients."""
    return np.asarray(sampler.choose(IDLE.copy(), n, stream(seed, "check", n), seen))


def chooses_different_idle_clients(sampler: Sampler, seen: Seen, n: int) -> None:
    """A choice is n different clients (candidates: n or more) of those who are idle."""
    clients, name = chosen(sampler, seen, n), name_of(sampler)
    enough = len(clients) >= n if isinstance(sampler, PollingSampler) else len(clients) == n
    hold(enough, f"{name}.choose returns {len(clients)} clients where {n} were wanted")
    hold(len(set(clients.tolist())) == len(clients), f"{name}.choose returns a client twice")
    strangers = sorted(set(clients.tolist()) - set(IDLE.tolist()))
    hold(not strangers, f"{name}.choose returns {strangers}, who are not idle")


def answers_alike_and_changes_nothing(sampler: Sampler, seen: Seen, n: int) -> None:
    """`choose` is a function of what it is given, chance included; between two calls it keeps nothing."""
    name, before, choices = name_of(sampler), sampler.model_dump(), []
    for _ in range(2):
        idle = IDLE.copy()
        clients = sampler.choose(idle, n, stream(0, "check", n), seen)
        choices.append(fingerprint(np.asarray(clients)))
        hold(np.array_equal(idle, IDLE), f"{name}.choose changes the array of idle clients")
    hold(choices[0] == choices[1], f"{name}.choose answers otherwise when it is asked again")
    hold(sampler.model_dump() == before, f"{name}.choose changes the sampler")


def draws_by_address_alone(sampler: Sampler, seen: Seen) -> None:
    """All chance comes from the generator it is given: NumPy's global state is neither used nor set."""
    state = np.random.get_state()  # noqa: NPY002  # the global state is what must not be touched
    try:
        for seed in (1, 2):
            np.random.set_state(np.random.RandomState(seed).get_state())  # noqa: NPY002
            before = repr(np.random.get_state())  # noqa: NPY002
            chosen(sampler, seen, WANTED[1])
            untouched = repr(np.random.get_state()) == before  # noqa: NPY002
            hold(untouched, f"{name_of(sampler)}.choose draws from NumPy's global generator")
    finally:
        np.random.set_state(state)  # noqa: NPY002


def keeps_some_of_its_candidates(sampler: PollingSampler, seen: Seen, n: int) -> None:
    """Of candidates that have told their losses it keeps between one and n, whoever has not answered."""
    candidates, name = chosen(sampler, seen, n), name_of(sampler)
    for answered in (candidates, candidates[: max(1, len(candidates) // 2)]):
        losses = 1.0 + np.cos(answered.astype(float))
        keep = [np.asarray(sampler.keep(answered.copy(), losses.copy(), n)) for _ in range(2)]
        hold(np.array_equal(keep[0], keep[1]), f"{name}.keep answers otherwise when it is asked again")
        hold(
            1 <= len(keep[0]) <= n, f"{name}.keep returns {len(keep[0])} clients where at most {n} are wanted"
        )
        hold(
            set(keep[0].tolist()) <= set(answered.tolist()),
            f"{name}.keep returns clients that did not answer",
        )
        hold(len(set(keep[0].tolist())) == len(keep[0]), f"{name}.keep returns a client twice")
