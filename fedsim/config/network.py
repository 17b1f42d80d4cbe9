"""Settings of links and messages: `network` and `wire`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.component import Config
from fedsim.config.fields import NonNegative, Positive
from fedsim.errors import invalid


class NetworkConfig(Config):
    """The server's link, how links are shared, and what the server learns when.

    Attributes:
        server_up_mbps, server_down_mbps: the server's link: its uplink feeds downloads.
        sharing: `private`: the server's rate caps each transfer, and nobody slows anybody down; `max-min`: the
            transfers under way share the server's link fairly, as behind a fair queue.
        model: `tcp`: headers, handshake, slow start; `size-over-rate`: bytes over rate and no more, the formula
            of simulators that know no TCP, to compare with.
        congestion: `loss-based` (Reno, CUBIC) holds a rate that falls with `loss` and the round trip
            (`fedsim.network.tcp.loss_limit`); `bbr` is modelled without loss.
        loss: share of packets lost on the way between each client and the server.
        backbone: whether the frozen model is on the device, or comes with a client's first visit. A client whose first
            downloads are late or lost five times in a row is not asked again (`never_equipped` in `run.json`).
        detect_after_s: how long the server takes to notice that a client is gone.
    """

    server_up_mbps: Positive = 1000.0
    server_down_mbps: Positive = 1000.0
    sharing: Literal["private", "max-min"] = "private"
    model: Literal["tcp", "size-over-rate"] = "tcp"
    congestion: Literal["bbr", "loss-based"] = "bbr"
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    backbone: Literal["preinstalled", "first_visit"] = "preinstalled"
    detect_after_s: NonNegative = 30.0


class WireConfig(Config):
    """How an adapter is sent: `fedsim.network.messages` has the formats and their bytes.

    Attributes:
        dtype: of the numbers that go up, the client's move since its download; int8 and int4 have one scale an array.
        down_dtype: of the numbers that come down, the model itself.
        rounding: to bfloat16, int8 and int4; `stochastic` is right on average, `nearest` errs least each time.
        top_k: share of the numbers that go up, the largest of each message; the rest is not sent.
        error_feedback: a client adds what its last message left out or rounded off to its next one.
    """

    dtype: Literal["float32", "bfloat16", "int8", "int4"] = "float32"
    down_dtype: Literal["float32", "bfloat16", "int8", "int4"] = "float32"
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    top_k: Annotated[float, Field(gt=0, le=1)] = 1.0
    error_feedback: bool = False

    @model_validator(mode="after")
    def _something_to_feed_back(self) -> WireConfig:
        if self.error_feedback and self.dtype == "float32" and self.top_k == 1.0:
            fix = "set wire.top_k below 1 or another wire.dtype, or remove it"
            raise invalid("has `error_feedback`, and nothing is lost on the way up", fix=fix)
        return self
