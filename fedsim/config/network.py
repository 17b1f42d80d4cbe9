"""Settings of links and messages: `network`, `wire`, and `population.shared_links`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fedsim.component import Config
from fedsim.config.fields import Count, NonNegative, Positive, least_shown
from fedsim.errors import invalid

KEEP_ALIVE_S = 7440.0


class Tls(Config):
    """TLS on every connection: more round trips at its beginning (`fedsim.network.transport.tls`).

    Attributes:
        version: 1.2 or 1.3.
        ticket_s: how long a client may resume a session [s]; 0: never. By default what nginx has (`ssl_session_timeout`,
            5 minutes); TLS 1.3 allows a week at most (RFC 8446, section 4.6.1).
        early_data: with TLS 1.3, a resumed session sends its first bytes without waiting.
    """

    version: Literal["1.2", "1.3"] = "1.3"
    ticket_s: Annotated[float, Field(ge=0, le=604_800, allow_inf_nan=False)] = 300.0
    early_data: bool = False

    @field_validator("version", mode="before")
    @classmethod
    def _as_text(cls, value: object) -> object:
        return str(value) if isinstance(value, float) else value

    @model_validator(mode="after")
    def _early_data_of_a_resumed_session(self) -> Tls:
        if self.early_data and self.version != "1.3":
            raise invalid(
                "has `early_data`, which TLS 1.2 does not know", fix="remove it, or set version: 1.3"
            )
        if self.early_data and not self.ticket_s:
            fix = "remove it, or set ticket_s: 300"
            raise invalid("has `early_data`, and no session is ever resumed", fix=fix)
        return self


class LossBursts(Config):
    """Spells in which many packets are lost, by client (`fedsim.network.transport.loss_bursts`).

    Attributes:
        loss: share of packets lost in a spell.
        share: of the time that is in spells.
        mean_s: how long they last on average [s].
    """

    loss: Annotated[float, Field(gt=0, lt=1)]
    share: Annotated[float, Field(gt=0, le=0.9)]
    mean_s: Annotated[float, Field(ge=1, le=86_400, allow_inf_nan=False)] = 2.0

    @model_validator(mode="after")
    def _calm_for_a_second(self) -> LossBursts:
        if self.mean_s * (1 - self.share) < self.share * (1 - 1e-12):
            least_s = least_shown(self.share / (1 - self.share))
            what = f"has spells with less than a second between them: mean_s must be at least {least_s}"
            raise invalid(what, fix="make mean_s longer, or share smaller")
        return self


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
        loss_bursts: spells of more loss than `loss`, which holds between them; None: none.
        tls: TLS on every connection; None: none.
        backbone: whether the frozen model is on the device, or comes with a client's first visit. A client to
            whom it cannot get through within a deadline or a window is not asked again after five tries, any other
            after fifty that failed (`never_equipped` in `run.json`).
        backbone_from: who sends it: the `server`, or a `cdn`, whose downloads do not use the server's link
            (`fedsim.network.transport.cdn`).
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
    loss_bursts: LossBursts | None = None
    tls: Tls | None = None
    backbone: Literal["preinstalled", "first_visit"] = "preinstalled"
    backbone_from: Literal["server", "cdn"] = "server"
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


class Homes(Config):
    """Clients of one home share its line, whether on Wi-Fi or wired.

    Attributes:
        clients: of a home, on average.
    """

    clients: Annotated[float, Field(ge=1, le=500)] = 2.0


class Cells(Config):
    """Clients on cellular networks share their cell.

    Attributes:
        clients: of a cell, on average.
        down_mbps, up_mbps: what a cell carries; None: what the network table says.
    """

    clients: Annotated[float, Field(ge=1, le=500)] = 20.0
    down_mbps: Positive | None = None
    up_mbps: Positive | None = None


class Regions(Config):
    """Clients of one region share the link that connects it.

    Attributes:
        regions: how many there are; a client is in the same as for `population.outages` with as many.
        down_mbps, up_mbps: what the link carries, to the clients and from them.
    """

    regions: Count = 10
    down_mbps: Positive
    up_mbps: Positive


class SharedLinks(Config):
    """Links that groups of clients share, between their own and the server's; rates are max-min fair over all of them.

    Attributes:
        homes: clients of one home share its line; None: each has its own.
        cells: clients on cellular networks share their cell; None: none is shared.
        regions: clients of one region share the link that connects it; None: none is shared.
    """

    homes: Homes | None = None
    cells: Cells | None = None
    regions: Regions | None = None

    @model_validator(mode="after")
    def _something_shared(self) -> SharedLinks:
        if self.homes is None and self.cells is None and self.regions is None:
            raise invalid("names no links that are shared", fix="give homes, cells or regions, or remove it")
        return self
