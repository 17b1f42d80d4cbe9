"""What a visit would take if nothing happened on the way; pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fedsim.clock.usage import active_j, tails_j
from fedsim.config.devices import ComputeConfig
from fedsim.config.network import NetworkConfig
from fedsim.cost.energy import gross_j
from fedsim.cost.work import Work
from fedsim.devices.compute import training
from fedsim.devices.population import Profile
from fedsim.instants import in_time
from fedsim.network.build import handshakes_of, path_of
from fedsim.network.tcp import Opening, transfer_s
from fedsim.network.transport.tls import PLAIN


@dataclass(frozen=True)
class Estimate:
    """How long a visit would take by itself, and what it would cost.

    Attributes:
        download_s, train_s, upload_s, total_s: durations [s].
        joules, gross_joules: energy above idle, and all that the device draws meanwhile [J].
        fits: whether the device's memory holds the training.
        lands: whether it fits and the client's window (ending at `until_s`) is long enough.
    """

    download_s: float
    train_s: float
    upload_s: float
    total_s: float
    joules: float
    gross_joules: float
    fits: bool
    lands: bool


def estimate(
    profile: Profile,
    work: Work,
    now_s: float,
    until_s: float = math.inf,
    *,
    compute: ComputeConfig | None = None,
    tail: bool = False,
    network: NetworkConfig | None = None,
) -> Estimate:
    """Return the course of a visit that starts at `now_s`, alone on its own link and the server's, on a cool device; pure.

    It knows the client's windows and nothing of batteries: `until_s` is when the window closes. `compute` says
    what is modelled of the training (noise is left out), `tail` whether the radio stays up, `network` the server's
    rates, losses, what it takes to open a connection, and whether the upload finds that of the download open; without it each opens
    its own, and nothing but the client's link is in the way.
    """
    shakes = PLAIN if network is None else handshakes_of(network)
    down_s = _download_s(profile, work, Opening(shakes.full), network)
    course = training(profile, work, compute)
    train_s = course.duration_s
    kept = network is not None and network.connection == "persistent" and train_s <= network.keep_alive_s
    anew = shakes.resumed if work.down_bytes and train_s <= shakes.ticket_s else shakes.full
    opening = Opening(0 if kept and work.down_bytes else anew)
    up_s = transfer_s(work.up_bytes, *path_of(network, "up", profile), opening)
    total_s = down_s + train_s + up_s
    joules = active_j(
        profile,
        down_s=down_s,
        down_bytes=work.down_bytes,
        train_j=course.joules(train_s, profile.idle_w),
        up_s=up_s,
        up_bytes=work.up_bytes,
    )
    if tail:
        joules += tails_j(profile, train_s if work.up_bytes else None, downloads=work.down_bytes > 0)
    gross = gross_j(joules, profile.idle_w, total_s)
    fits = work.memory_bytes <= profile.usable_memory_bytes
    return Estimate(
        down_s, train_s, up_s, total_s, joules, gross, fits, fits and in_time(now_s + total_s, until_s)
    )


def _download_s(profile: Profile, work: Work, opening: Opening, network: NetworkConfig | None) -> float:
    """Return the seconds of a download; what a CDN sends comes first, over a connection of its own."""
    rest_s = transfer_s(work.down_bytes - work.cdn_bytes, *path_of(network, "down", profile), opening)
    if not work.cdn_bytes:
        return rest_s
    return transfer_s(work.cdn_bytes, *path_of(network, "down", profile, server=False), opening) + rest_s
