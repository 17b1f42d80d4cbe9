"""The network of an experiment: private links, or links that are shared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fedsim.network.base import MBPS, Links, Network
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
