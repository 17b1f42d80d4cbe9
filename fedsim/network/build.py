"""The network of an experiment: private links, or links that are shared."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from fedsim.network.base import DIRECTIONS, MBPS, ClientLink, Direction, Links, Network
from fedsim.network.private import Path, PrivateLinks, path_alone
from fedsim.network.shared import FluidNetwork
from fedsim.network.tcp import Connections
from fedsim.network.transport.cdn import WithCdn
from fedsim.network.transport.loss_bursts import Bursts
from fedsim.network.transport.tls import PLAIN, Handshakes, tls_handshakes
from fedsim.network.transport.two_states import chances

if TYPE_CHECKING:
    from simpy import Environment

    from fedsim.config.network import NetworkConfig
    from fedsim.network.base import Groups


def network_of(
    config: NetworkConfig, links: Links, env: Environment, *, groups: Groups | None = None, seed: int = 0
) -> Network:
    """Return the network that the settings describe, over these clients' links, on a clock.

    Args:
        config: the settings.
        links: the clients' own.
        env: the clock.
        groups: who shares links between its own and the server's; None: nobody.
        seed: address of what is random on the way.
    """
    server = _way(config, links, env, groups, seed)
    if config.backbone_from == "server" or groups is not None:
        return server
    cdn = config.model_copy(update={"server_up_mbps": math.inf, "sharing": "private", "connection": "new"})
    return WithCdn(env, server, _way(cdn, links, env, None, seed))


def _way(config: NetworkConfig, links: Links, env: Environment, groups: Groups | None, seed: int) -> Network:
    """Return the way to one server."""
    up, down = config.server_up_mbps * MBPS, config.server_down_mbps * MBPS
    private, naive = config.sharing == "private", config.model != "tcp"
    kept_s = config.keep_alive_s if config.connection == "persistent" else None
    connections = Connections(kept_s, handshakes_of(config))
    spells = config.loss_bursts
    if naive or (private and not links.varying and spells is None):
        return PrivateLinks(env, links, up, down, loss=config.loss, naive=naive, connections=connections)
    return FluidNetwork(
        env,
        links,
        up,
        down,
        loss=config.loss,
        isolated=private,
        connections=connections,
        groups=groups,
        cdn=Connections(None, handshakes_of(config)) if groups and config.backbone_from == "cdn" else None,
        bursts=None if spells is None else Bursts(spells.loss, chances(spells.share, spells.mean_s), seed),
    )


def handshakes_of(config: NetworkConfig) -> Handshakes:
    """Return the round trips of new connections."""
    tls = config.tls
    return PLAIN if tls is None else tls_handshakes(tls.version, tls.ticket_s, early_data=tls.early_data)


def path_of(
    config: NetworkConfig | None, direction: Direction, link: ClientLink, *, server: bool = True
) -> Path:
    """Return what one transfer has with nobody beside it, over a client's link of constant rate and the server's.

    Args:
        config: of the network; None: no server and no loss.
        direction: `up` or `down`.
        link: the client's own.
        server: whether the server's own link is on the way; that of a CDN has no end.
    """
    own = link.up_bytes_per_s if direction == "up" else link.down_bytes_per_s
    if config is None:
        return Path(own, link.rtt_s, link.framing)
    theirs_mbps = config.server_down_mbps if direction == "up" else config.server_up_mbps
    rate = min(own, theirs_mbps * MBPS) if server else own
    return path_alone(rate, link.rtt_s, link.framing, loss=config.loss, naive=config.model != "tcp")


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
