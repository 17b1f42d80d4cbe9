"""The columns of tables of access networks."""

from __future__ import annotations

from fedsim.files.user_tables import Column
from fedsim.network.base import DIRECTIONS, Direction

_RATES: dict[Direction, tuple[str, str]] = {
    "down": ("downloads; world medians of 2025: mobile 91, fixed 98", "100"),
    "up": ("uploads; 0.05 of the download on 5G in the USA, 0.2 on cable, 0.5 to 1 on fibre", "20"),
}
"""Direction -> what its rate is of, and a typical one."""

LEAST_MBPS, MOST_MBPS = 1e-6, 1e6
"""A bit and a terabit a second: no link of one client is slower or faster."""
MOST_MS, MOST_W = 1e6, 1e3
"""A quarter of an hour there and back; a kilowatt of a radio."""


def _spread(name: str, of: str) -> Column:
    meaning = f"sigma of the natural logarithm of {of} over clients: 0.7 is a factor of 2 either way"
    return Column(name, low=0.0, high=5.0, meaning=meaning, usual="0.7")


def _way(direction: Direction) -> tuple[Column, Column]:
    meaning, usual = _RATES[direction]
    rate = f"median rate of {meaning}"
    return (
        Column(
            f"{direction}_mbps",
            positive=True,
            low=LEAST_MBPS,
            high=MOST_MBPS,
            unit="10^6 bit/s",
            meaning=rate,
            usual=usual,
        ),
        _spread(f"{direction}_sigma_ln", f"that of {direction}loads"),
    )


NETWORK_COLUMNS = (
    Column("network", "key", meaning="name of the row, once in the table", usual="home"),
    Column(
        "access",
        "text",
        choices=("wifi", "wired", "cellular"),
        meaning="cellular is for phones only, and metered",
        usual="wifi",
    ),
    *_way("down"),
    *_way("up"),
    Column(
        "down_up_correlation",
        low=-1.0,
        high=1.0,
        meaning="of the two logarithms; 0.5 to 0.8 was measured",
        usual="0.6",
    ),
    Column(
        "rtt_ms",
        positive=True,
        low=1e-3,
        high=MOST_MS,
        unit="ms",
        meaning="median round trip; 10 of fibre, 50 of LTE",
        usual="20",
    ),
    _spread("rtt_sigma_ln", "the round trip"),
    Column(
        "packet_bytes",
        low=1448.0,
        high=9000.0,
        unit="bytes",
        meaning="on the link for 1448 bytes of payload: 1500, or 1514 with an Ethernet or Wi-Fi header",
        usual="1514",
    ),
    *(
        Column(
            f"{direction}_radio_w",
            low=0.0,
            high=MOST_W,
            unit="W",
            meaning="an active radio at no load; 0.6 of Wi-Fi, 2.7 to 5 of cellular",
            usual="0.6",
        )
        for direction in DIRECTIONS
    ),
    *(
        Column(
            f"{direction}_radio_mw_per_mbps",
            low=0.0,
            high=1e3 * MOST_W,
            unit="mW per 10^6 bit/s",
            meaning="on top of it; 6 to 9 of Wi-Fi, 15 to 80 of LTE",
            usual="6",
        )
        for direction in DIRECTIONS
    ),
)
VARIATION_COLUMNS = (
    Column(
        "within_cv",
        low=0.0,
        high=5.0,
        meaning="standard deviation over mean of a link's rate over time; 0.3 of Wi-Fi, 0.5 of LTE",
        usual="0.3",
    ),
    Column(
        "autocorrelation_1s",
        low=0.0,
        high=0.99,
        meaning="of the rate, from one second to the next",
        usual="0.7",
    ),
    Column("outage_share", low=0.0, high=0.9, meaning="share of the time at rate 0", usual="0.003"),
    Column(
        "outage_mean_s", low=1.0, high=86_400.0, unit="s", meaning="mean length of an outage", usual="3.4"
    ),
)
"""How a link's rate varies, as the fields of `RateLaw`; only generated rates need these columns."""
OPTIONAL_NETWORK_COLUMNS = (
    Column(
        "tail_s",
        low=0.0,
        high=1e-3 * MOST_MS,
        unit="s",
        meaning="how long the radio stays up after a transfer; 0.2 of Wi-Fi, 12 of LTE",
        usual="0.238",
    ),
    Column("tail_w", low=0.0, high=MOST_W, unit="W", meaning="its power then", usual="0.119"),
)
"""How long the radio stays up after a transfer, and its power then; 0 without them."""
HOP_COLUMNS = (
    Column(
        "hop_mbps",
        positive=True,
        low=LEAST_MBPS,
        high=MOST_MBPS,
        unit="10^6 bit/s",
        meaning="median rate of the Wi-Fi before a line; rates are then of the line, and a client has the slower of both",
        usual="500",
    ),
    _spread("hop_sigma_ln", "the Wi-Fi's rate"),
)
CELL_COLUMNS = tuple(
    Column(
        f"cell_{direction}_mbps",
        positive=True,
        low=LEAST_MBPS,
        high=MOST_MBPS,
        unit="10^6 bit/s",
        meaning=f"what a cell carries for all, {direction}; LTE 44 down and 28 up, 5G 585 and 135",
        usual=usual,
    )
    for direction, usual in (("down", "44"), ("up", "28"))
)
"""What lies between clients and lines: cells of rows without may be empty."""
