"""Round trips of TLS on top of TCP's own, for a first contact and for a later one.

TLS 1.3 takes one round trip, whether its session is new or resumed (RFC 8446, sections 2 and 2.2), and none where a
resumed one sends its first bytes as early data (section 2.3). TLS 1.2 takes two, and one where a session is resumed
(RFC 5246, section 7.3). TCP's handshake, one round trip, comes before (RFC 9293, section 3.5).

A ticket to resume is issued at the end of every handshake, and is good for `ticket_s`. What certificates and
signatures weigh, a few kilobytes, and what they take to compute, is not counted.
"""

from __future__ import annotations

from typing import NamedTuple

TCP_ROUND_TRIPS = 1
FULL = {"1.2": 2, "1.3": 1}
RESUMED = {"1.2": 1, "1.3": 1}


class Handshakes(NamedTuple):
    """Round trips of a new connection until its first byte may leave.

    Attributes:
        full: at a first contact.
        resumed: with a ticket.
        ticket_s: how long one is good [s].
    """

    full: int = TCP_ROUND_TRIPS
    resumed: int = TCP_ROUND_TRIPS
    ticket_s: float = 0.0


PLAIN = Handshakes()
"""Without TLS."""


def tls_handshakes(version: str, ticket_s: float, *, early_data: bool) -> Handshakes:
    """Return the handshakes of a version of TLS.

    Args:
        version: `1.2` or `1.3`.
        ticket_s: how long a ticket is good [s]; 0: nobody resumes.
        early_data: whether a resumed session sends its first bytes at once.
    """
    resumed = 0 if early_data else RESUMED[version]
    return Handshakes(TCP_ROUND_TRIPS + FULL[version], TCP_ROUND_TRIPS + resumed, ticket_s)
