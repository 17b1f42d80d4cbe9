"""Settings of who takes part: `population`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from fedsim.component import Config
from fedsim.config.fields import DAY_S, Count
from fedsim.config.network import SharedLinks
from fedsim.errors import invalid


class Outages(Config):
    """Which clients are gone together, how often and for how long.

    Attributes:
        by: `region`: each client lives in one of `regions`, drawn by address; `network` or `tier`: those of one
            row, or one class, of the tables; `everyone`: the server itself is cut off.
        regions: number of regions.
        per_day: outages that a group has in a day, on average, for every day that it is up.
        mean_s: how long they last on average.
    """

    by: Literal["region", "network", "tier", "everyone"] = "region"
    regions: Count = 10
    per_day: Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
    mean_s: Annotated[float, Field(gt=0, le=1e7, allow_inf_nan=False)]

    @property
    def up_s(self) -> float:
        """Mean time between two outages."""
        return DAY_S / self.per_day

    @property
    def up_share(self) -> float:
        """Share of time without: up / (up + down)."""
        return self.up_s / (self.up_s + self.mean_s)


class PopulationConfig(Config):
    """Who takes part: a preset or the user's own tables, how many, when they are there, on what links.

    `availability` says when devices may be used: `always`; `charging`, while they hang on their plugs; `eligible`, while they are idle,
    charging and on an unmetered network (at home, where the home has Wi-Fi): what production systems ask for; or a table of windows.

    `links` says which link a client is on: `one`, the same always; `by-place`, that of its home while it is there and a cellular one of its
    own while its owner has taken it out (phones alone are carried). With `eligible`, and `by-place`, the networks that are drawn are
    those of the homes, so many of them Wi-Fi that the shares of the table come out over time.

    `on_close` says what happens to a visit whose device goes away (its window closes, an outage, its battery is
    low, it is too warm): `lost`; `pause`: it goes on when the device is back; `partial`: training ends with
    the last whole step, and what there is is uploaded when the device is back (a download that is cut is lost).

    `rates` may say for each kind of link where its rates are from, as in `{lte: lte.csv, wifi: generated}`: the first that fits a client, of its
    row of the network table, its access (`wifi`, `wired`, `cellular`) and its class of devices; links that nothing fits are constant.
    `rates_for` names the rows of the network table whose links follow `rates`; those of the others are constant.
    None: all links.

    `shares` says how the clients come by their devices and networks: `drawn`, each by itself, so that 80 clients of
    which 60 % are phones may be 50 phones and 30 others; `exact`: every class of devices (of a region: every group of its table, as
    phones, and iPhones among them), every device in it, and every network among the devices that may be on it, has its share to
    within one client (largest remainders), and only who has which is drawn. A client of a seed is then another one in a population
    of another size.

    `shared_links` says which links clients of a home, a cell or a region share (`fedsim.devices.groups.shared_links`); None: none.

    `wifi_only` left out is true with `availability: charging` and false with everything else.

    Attributes:
        preset: a population that comes with fedsim: `fedsim profiles list` lists them. This, or `devices`.
        devices: a table of devices of your own (CSV or Parquet).
        networks: a table of links of your own; needed with `devices`.
        regions: a table of shares of your own, who owns what and is on which networks, instead of those of the preset's table
            (`world_2026` and other presets of a region) or of the column `share` of your tables of hardware and networks.
        region: which region of `regions`; None: that of the preset, or the only one of the table.
        clients: how many there are.
        availability: `always`, `charging`, `eligible`, or a table of windows (see above).
        time_zones: hours by which the windows of clients are shifted; each client is given one in turn by
            address.
        outages: that several clients share; None: none.
        on_close: what happens to a visit whose device goes away.
        shares: how clients come by their devices and networks.
        wifi_only: whether clients on cellular networks are left out; None: true with `availability:
            charging`.
        links: which link a client is on.
        rates: how rates vary over time: `constant`, `generated`, a trace, or one of these for each kind of
            link.
        rates_at_end: what follows the end of a trace: it begins again (`loop`), its last rate stays (`hold`),
            or the run fails (`fail`).
        rates_phase: where in its trace a client begins: at its `start`, or at a `random` place by address.
        rates_level: mean of a client's rate: that of the `trace`, or that of the `client`'s own link, the
            trace being its shape.
        rates_for: rows of the network table whose links follow `rates`; None: all.
        shared_links: links that clients of a home, a cell or a region share; None: none.
    """

    preset: str | None = None
    devices: Path | None = None
    networks: Path | None = None
    regions: Path | None = None
    region: str | None = None
    clients: Count
    availability: str = "always"
    time_zones: tuple[Annotated[float, Field(ge=-24, le=24, allow_inf_nan=False)], ...] = (0.0,)
    outages: Outages | None = None
    on_close: Literal["lost", "pause", "partial"] = "lost"
    shares: Literal["drawn", "exact"] = "drawn"
    wifi_only: bool | None = None
    links: Literal["one", "by-place"] = "one"
    rates: str | dict[str, str] = "constant"
    rates_at_end: Literal["loop", "hold", "fail"] | None = None
    rates_phase: Literal["start", "random"] = "start"
    rates_level: Literal["trace", "client"] = "trace"
    rates_for: tuple[str, ...] | None = None
    shared_links: SharedLinks | None = None

    @model_validator(mode="after")
    def _one_source(self) -> PopulationConfig:
        if (self.preset is None) == (self.devices is None):
            both = "neither `preset` nor" if self.preset is None else "both `preset` and"
            raise invalid(f"has {both} `devices`", fix="give one: a preset, or a devices table")
        if self.preset is not None and self.networks is not None:
            fix = "remove networks, or give a table of devices in place of the preset"
            raise invalid("has `networks` beside `preset`, which has links of its own", fix=fix)
        if self.devices is not None and self.networks is None:
            raise invalid("has `devices` without `networks`", fix="add networks: FILE")
        if self.region is not None and self.regions is None:
            fix = "add regions: FILE, or name the preset of that region (`fedsim profiles list`)"
            raise invalid("has `region` without `regions`", fix=fix)
        return self

    @model_validator(mode="after")
    def _rates_that_end(self) -> PopulationConfig:
        traced = any(source not in ("constant", "generated") for source in self.rate_sources)
        if not self.rate_sources:
            raise invalid("has no links in `rates`", fix="write rates: constant, or links with their source")
        if self.rates_for is not None and isinstance(self.rates, dict):
            raise invalid("has `rates_for` beside `rates` by link", fix="remove it: the keys say which links")
        if self.links == "by-place" and traced:
            what = "has traces in `rates` for links that change with the place"
            raise invalid(what, fix="set links: one, or rates: constant or generated")
        if traced and self.rates_at_end is None:
            fix = "add rates_at_end: loop, hold or fail"
            raise invalid("has `rates` from a file, which ends", fix=fix)
        changed = {
            "rates_at_end": self.rates_at_end is not None,
            "rates_phase": self.rates_phase != "start",
            "rates_level": self.rates_level != "trace",
        }
        for name in (name for name, is_changed in changed.items() if is_changed and not traced):
            raise invalid(f"has `{name}` without a file of rates", fix="remove it, or add rates: FILE")
        if self.rates_for is not None and self.rates == "constant":
            raise invalid("has `rates_for` for links that are constant", fix="remove it, or add rates: FILE")
        if self.rates_for is not None and not self.rates_for:
            fix = "name rows of the network table, as in rates_for: [lte], or remove it"
            raise invalid("has no network in `rates_for`", fix=fix)
        if self.rates_phase == "random" and self.rates_at_end != "loop":
            fix = "set rates_at_end: loop, or rates_phase: start"
            raise invalid("has `rates_phase: random` for traces that do not loop", fix=fix)
        return self

    @property
    def rate_sources(self) -> tuple[str, ...]:
        """Where rates are from: `constant`, `generated`, files; each as often as it is named."""
        return tuple(self.rates.values()) if isinstance(self.rates, dict) else (self.rates,)

    @property
    def by_home(self) -> bool:
        """Whether the networks that are drawn are those of the homes."""
        return self.availability == "eligible" or self.links == "by-place"

    @model_validator(mode="after")
    def _zones_of_windows(self) -> PopulationConfig:
        if not self.time_zones:
            raise invalid("has no `time_zones`", fix="remove it, or give hours, as in time_zones: [0, 8]")
        if self.availability == "always" and self.links == "one" and self.time_zones != (0.0,):
            fix = "remove it, or set availability: charging or a file"
            raise invalid("has `time_zones` for clients that are always there", fix=fix)
        return self
