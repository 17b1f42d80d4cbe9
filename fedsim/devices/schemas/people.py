"""The columns of tables about people: shares of regions, and windows in which devices may be used."""

from __future__ import annotations

from fedsim.files.user_tables import Column

SHARE_SUM = 0.002
"""By how much shares of one whole may miss 1: figures are rounded."""
LATEST_S, MOST_CLIENTS = 1e10, 1e12
"""Three centuries; more clients than there are people."""
SOURCE_KINDS = ("read", "second-hand", "derived", "assumed")

REGION_COLUMNS = (
    Column("region", "text", meaning="name of the region, as presets ask for it", usual="world"),
    Column(
        "of",
        "text",
        choices=(
            *("devices", "phone", "android-phone", "tablet", "computer"),
            *("phone-link", "wifi", "cellular"),
        ),
        meaning="what is divided; `phone-link` is a phone's time",
        usual="devices",
    ),
    Column(
        "group",
        "text",
        meaning="the part of it; of wifi and cellular, a row of the network table",
        usual="phone",
    ),
    Column("share", low=0.0, high=1.0, meaning="how much of it that part is", usual="0.7"),
    Column("kind", "text", choices=SOURCE_KINDS, meaning="where the share is from", usual="assumed"),
    Column("source", "text", meaning="who says so, and how it follows", usual="our estimate"),
)
WINDOW_COLUMNS = (
    Column(
        "start_s",
        low=0.0,
        high=LATEST_S,
        unit="s",
        meaning="when the window opens, virtual time",
        usual="82800",
    ),
    Column(
        "stop_s",
        low=0.0,
        high=LATEST_S,
        unit="s",
        meaning="when it closes: after start_s, and not later than period_s",
        usual="86400",
    ),
)
WINDOW_OWNERS = (
    Column(
        "client", low=0.0, high=MOST_CLIENTS, meaning="whose window it is, a whole number from 0", usual="0"
    ),
    Column("trace", "text", meaning="any label; its windows go to one client after the other", usual="a"),
)
"""A table of windows has one of these two."""
