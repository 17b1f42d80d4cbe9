"""Small worlds for tests: hand-made devices, the closed-form task, and a run of it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import numpy as np

from fedsim.clock.auto import context_of, keys_filled, with_auto_filled
from fedsim.clock.plan import Plan
from fedsim.config.experiment import Experiment
from fedsim.cost.formulas import train_flops
from fedsim.cost.memory.model import PLAIN
from fedsim.devices.availability import Availability
from fedsim.devices.population import Profile
from fedsim.records.writer import Writer
from fedsim.runs.course import course
from fedsim.runs.ending import closed_whatever_happens
from fedsim.runs.simulation import simulate
from fedsim.server.ledger import quiet

FAST = 1e15  # a link so fast that a transfer takes fedsim's shortest time


def device(client, *, flops_per_s, rate=FAST, rtt_s=0.0, memory=1e12, train_w=2.0, idle_w=0.0, radio_w=0.0):
    return Profile(
        client=client,
        device="test",
        tier="test",
        network="test",
        flops_per_s=flops_per_s,
        memory_bytes=memory,
        usable_memory_bytes=memory,
        memory_bytes_per_s=1e12,
        down_bytes_per_s=rate,
        up_bytes_per_s=rate,
        rtt_s=rtt_s,
        framing=1.0,
        train_w=train_w,
        idle_w=idle_w,
        down_radio_w=radio_w,
        down_radio_j_per_byte=0.0,
        up_radio_w=radio_w,
        up_radio_j_per_byte=0.0,
        battery_wh=0.0,
    )


@dataclass
class World:
    """A population given device by device; `links` are rates over time by (client, direction)."""

    profiles: list[Profile]
    availability: Availability
    sources: dict = field(default_factory=dict)
    links: dict = field(default_factory=dict)
    groups: object = None
    laws = None
    hardware = None

    @property
    def rooms(self):
        amounts, place = np.unique([p.usable_memory_bytes for p in self.profiles], return_inverse=True)
        return [(float(amount), PLAIN) for amount in amounts], place

    def memory_model(self, client):
        return PLAIN

    def __len__(self):
        return len(self.profiles)

    def profile(self, client):
        return self.profiles[client]

    def profiles_of(self, clients):
        return [self.profiles[client] for client in clients.tolist()]

    @property
    def varying(self):
        return bool(self.links)

    def rates(self, client, direction):
        return self.links.get((client, direction))

    def mean_rates(self, direction):
        return np.array([getattr(p, f"{direction}_bytes_per_s") for p in self.profiles])

    def columns(self):
        names = [field.name for field in fields(Profile)]
        return {name: np.array([getattr(p, name) for p in self.profiles]) for name in names}


def windows(per_client, period_s=np.inf):
    """Availability from a list of (start, stop) windows for every client."""
    flat = [w for client in per_client for w in client]
    return Availability(
        starts_s=np.array([w[0] for w in flat], dtype=np.float64),
        stops_s=np.array([w[1] for w in flat], dtype=np.float64),
        offsets=np.cumsum([0, *map(len, per_client)]).astype(np.int64),
        period_s=period_s,
    )


def experiment(protocol, clients, **blocks):
    return Experiment.model_validate(
        {
            "population": {"preset": "homogeneous", "clients": clients},
            "task": {"kind": "quadratic"},
            "local": {"optimizer": "sgd", "lr": 0.1, "steps": 2},
            "protocol": protocol,
            "budget": {"commits": 5},
            "network": {"server_up_mbps": 1e12, "server_down_mbps": 1e12, "detect_after_s": 30.0},
            "runtime": {"executor": "inline"},
            **blocks,
        }
    )


def plan(protocol, train_s, *, online=None, memory=None, rate=FAST, rtt_s=0.0, radio_w=0.0, **blocks):
    """A plan whose client i trains for exactly train_s[i] seconds on a link of no delay."""
    n = len(train_s)
    asked = experiment(protocol, n, **blocks)
    task = asked.task.build(context_of(asked))
    wanted = with_auto_filled(asked, task)
    flops = [train_flops(task.shape, task.tokens(c, wanted.local)) for c in range(n)]
    devices = [
        device(
            c,
            flops_per_s=flops[c] / train_s[c],
            memory=1e12 if memory is None else memory[c],
            rate=rate,
            rtt_s=rtt_s,
            radio_w=radio_w,
        )
        for c in range(n)
    ]
    availability = Availability.always(n) if online is None else windows(online)
    return Plan(wanted, World(devices, availability), task, task.shape, keys_filled(asked, wanted))


def simulated(protocol, train_s, *, timeline_only=True, gated=True, **rest):
    """The run of such a plan; without training unless asked for, and past the gate if that would refuse it."""
    made = plan(protocol, train_s, **rest)
    return simulate(made, timeline_only=timeline_only) if gated else ungated(made)


def ungated(made):
    """The timeline of a plan that the gate refuses: what the server makes of it."""
    writer = Writer(None, made.experiment)
    with closed_whatever_happens(writer):
        return course(made, None, writer, quiet)[0]
