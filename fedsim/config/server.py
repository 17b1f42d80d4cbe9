"""Settings of the server's own computing: `server`."""

from __future__ import annotations

from typing import Literal

from fedsim.component import Config
from fedsim.config.fields import Positive


class ServerCompute(Config):
    """How fast the server is: what it does one thing after the other takes operations / speed + bytes / bandwidth.

    Attributes:
        flops_per_s: floating-point operations a second, in the matrix products and decompositions of a commit.
        memory_bytes_per_s: memory bandwidth. Defaults: about sixteen server cores and eight channels of DDR4-3200
            (assumptions).
    """

    flops_per_s: Positive = 5e11
    memory_bytes_per_s: Positive = 1.5e11


class ServerConfig(Config):
    """What of the server's work takes virtual time.

    Attributes:
        compute: `none`: a commit takes no time. Else every commit takes the time of `fedsim.server.commit_time`: its
            messages are read and decoded, the mean is taken, and the rule's products and decompositions are computed.
            The server commits one after the other; whoever is asked next gets the new version, when it is there.
            Scores take none: they are the experimenter's, not the server's.
    """

    compute: Literal["none"] | ServerCompute = "none"
