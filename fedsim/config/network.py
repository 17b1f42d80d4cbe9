"""Settings of links and messages, and of the server that they lead to: `network`, `wire` and `server`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.component import Config
from fedsim.config.fields import NonNegative, Positive
from fedsim.errors import invalid

KEEP_ALIVE_S = 7440.0


class NetworkConfig(Config):
    """The server's link, how links are shared, and what the server learns when.

    Attributes:
        server_up_mbps, server_down_mbps: the server's link: its uplink feeds downloads.
        sharing: `max-min`: the transfers under way share the server's link fairly, as behind a fair queue;
            `private`: the server's rate caps each transfer, and nobody slows anybody down: together they may
            be faster than the server is. With `model: size-over-rate` the default is `private`, which it needs.
        model: `tcp`: headers, handshake, slow start; `size-over-rate`: bytes over rate and no more, the formula
            of simulators that know no TCP, to compare with.
        connection: `new`: every transfer opens a TCP connection of its own; `persistent`: a client's
            connection stays open while it is online, until `keep_alive_s` after its last use
            (`fedsim.network.tcp`).
        keep_alive_s: how long a connection stays open that nobody uses; by default what a NAT must keep at
            least (RFC 5382, REQ-5: 2 hours 4 minutes).
        interrupted: `restart`: what a broken-off download has brought is lost, unless its visit goes on
            (`population.on_close: pause`); `resume`: the client keeps it, and the next download of the same
            bytes goes on from there (`fedsim.server.clients`).
        congestion: `loss-based` (Reno, CUBIC) holds a rate that falls with `loss` and the round trip
            (`fedsim.network.tcp.loss_limit`); `bbr` holds the link's rate whatever the loss, which is too good
            for short transfers behind a shallow buffer (`benchmarks/fidelity`).
        loss: share of packets lost on the way between each client and the server.
        backbone: whether the frozen model is on the device, or comes with a client's first visit. A client to
            whom it cannot get through within a deadline or a window is not asked again after five tries, any other
            after fifty that failed (`never_equipped` in `run.json`).
        detect_after_s: how long the server takes to notice that a client is gone.
    """

    server_up_mbps: Positive = 1000.0
    server_down_mbps: Positive = 1000.0
    sharing: Literal["private", "max-min"] = "max-min"
    model: Literal["tcp", "size-over-rate"] = "tcp"
    connection: Literal["new", "persistent"] = "new"
    keep_alive_s: NonNegative = KEEP_ALIVE_S
    interrupted: Literal["restart", "resume"] = "restart"
    congestion: Literal["bbr", "loss-based"] = "bbr"
    loss: Annotated[float, Field(ge=0, lt=1)] = 0.0
    backbone: Literal["preinstalled", "first_visit"] = "preinstalled"
    detect_after_s: NonNegative = 30.0

    @model_validator(mode="before")
    @classmethod
    def _private_without_tcp(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("model") == "size-over-rate" and "sharing" not in values:
            return {**values, "sharing": "private"}
        return values

    @model_validator(mode="after")
    def _something_to_keep(self) -> NetworkConfig:
        if self.keep_alive_s != KEEP_ALIVE_S and self.connection == "new":
            fix = "remove it, or set network.connection: persistent"
            raise invalid("has `keep_alive_s` for connections that nobody keeps", fix=fix)
        return self


class WireConfig(Config):
    """How an adapter is sent: `fedsim.network.messages` has the formats and their bytes.

    Attributes:
        dtype: of the numbers that go up, the client's move since its download; int8 and int4 have one scale an array.
        down_dtype: of the numbers that come down, the model itself.
        rounding: to bfloat16, int8 and int4; `stochastic` is right on average, `nearest` errs least each time.
        top_k: share of the numbers that go up, the largest ones; the rest is not sent.
        top_k_by: the largest of the whole `message` (where A moves much less than B, only B is sent then), or of each
            `tensor` by itself, as sparsified training usually has it; at least one of each.
        error_feedback: a client adds what its last message left out or rounded off to its next one.
    """

    dtype: Literal["float32", "bfloat16", "int8", "int4"] = "float32"
    down_dtype: Literal["float32", "bfloat16", "int8", "int4"] = "float32"
    rounding: Literal["stochastic", "nearest"] = "stochastic"
    top_k: Annotated[float, Field(gt=0, le=1)] = 1.0
    top_k_by: Literal["message", "tensor"] = "message"
    error_feedback: bool = False

    @model_validator(mode="after")
    def _something_to_feed_back(self) -> WireConfig:
        if self.error_feedback and self.dtype == "float32" and self.top_k == 1.0:
            fix = "set wire.top_k below 1 or another wire.dtype, or remove it"
            raise invalid("has `error_feedback`, and nothing is lost on the way up", fix=fix)
        if self.top_k_by != "message" and self.top_k == 1.0:
            raise invalid(
                "has `top_k_by`, and every number is sent", fix="set wire.top_k below 1, or remove it"
            )
        return self
