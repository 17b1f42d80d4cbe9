"""When to ask, wait and commit: SimPy generators over the server's verbs; uses the clock, and no server."""

from __future__ import annotations

from fedsim.clock.protocol import Blend, ServerProtocol, Steps, Verbs

SEAMS = (ServerProtocol,)

__all__ = ["Blend", "ServerProtocol", "Steps", "Verbs"]
