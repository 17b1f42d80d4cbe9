"""The network of an experiment: private links, or links that are shared."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedsim.network.base import DIRECTIONS, MBPS, Direction, Links, Network
from fedsim.network.private import PrivateLinks
from fedsim.network.shared import FluidNetwork
from fedsim.network.tcp import Connections

if TYPE_CHECKING:
    from simpy import Environment

    from fedsim.config.network import NetworkConfig


def network_of(config: NetworkConfig, links: Links, env: Environment) -> Network:
    """Return the network that the settings describe, over these clients' links, on a clock."""
    up, down = config.server_up_mbps * MBPS, config.server_down_mbps * MBPS
    private, naive = config.sharing == "private", config.model != "tcp"
    connections = Connections(config.keep_alive_s if config.connection == "persistent" else None)
    if naive or (private and not links.varying):
        return PrivateLinks(env, links, up, down, loss=config.loss, naive=naive, connections=connections)
    return FluidNetwork(env, links, up, down, loss=config.loss, isolated=private, connections=connections)


Foresight = Mapping[Direction, PrivateLinks]
"""The links of each direction, where a transfer is known when it begins."""


def foresight_of(network: Network) -> Foresight | None:
    """Return the links of both directions if a transfer over them is known when it begins; None: it depends on others."""
    sides: dict[Direction, PrivateLinks] = {}
    if isinstance(network, PrivateLinks):
        sides = dict.fromkeys(DIRECTIONS, network)
    elif isinstance(network, FluidNetwork):
        sides = network.private
    foresees = len(sides) == len(DIRECTIONS) and all(side.foresees for side in sides.values())
    return sides if foresees else None
