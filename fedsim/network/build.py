"""The network of an experiment: private links, or links that are shared."""

from __future__ import annotations

import simpy

from fedsim.clock.plan import Plan
from fedsim.network.base import Network
from fedsim.network.private import PrivateLinks
from fedsim.network.shared import FluidNetwork

BYTES_PER_S = 1e6 / 8  # of one Mbit/s


def network_of(plan: Plan, env: simpy.Environment) -> Network:
    """Return the network of an experiment on a clock."""
    asked, population = plan.experiment.network, plan.population
    up, down = asked.server_up_mbps * BYTES_PER_S, asked.server_down_mbps * BYTES_PER_S
    private = asked.sharing == "private"
    if asked.model == "size-over-rate" or (private and not population.varying):
        return PrivateLinks(env, population, up, down, loss=asked.loss, naive=asked.model != "tcp")
    return FluidNetwork(env, population, up, down, loss=asked.loss, isolated=private)
