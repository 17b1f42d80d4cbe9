"""How a table of regions divides devices and links, and every way in which one fails to."""

from __future__ import annotations

import math
from collections.abc import Iterator

from fedsim.devices.schemas.people import REGION_COLUMNS, SHARE_SUM
from fedsim.errors import Message, nearest
from fedsim.files.user_tables import Rows, explaining, numbers, problems

PHONES, TABLETS = ("phone-low", "phone-mid", "phone-high"), ("tablet",)
COMPUTERS = ("laptop", "laptop-dgpu", "desktop")
TREE = {
    "devices": ("phone", "tablet", "computer"),
    "phone": ("iphone", "android-phone"),
    "android-phone": PHONES,
    "tablet": ("ipad", "android-tablet"),
    "computer": ("mac", "pc"),
    "phone-link": ("wifi", "cellular"),
}
"""What is divided -> its parts; `wifi` and `cellular` are divided into rows of the network table."""
LEAVES = {
    "iphone": (PHONES, ("ios",)),
    **{tier: ((tier,), ("android",)) for tier in PHONES},
    "ipad": (TABLETS, ("ios",)),
    "android-tablet": (TABLETS, ("android",)),
    "mac": (COMPUTERS, ("macos",)),
    "pc": (COMPUTERS, ("windows", "linux")),
}
"""Group of devices -> their classes and operating systems."""
LINKS = ("wifi", "cellular")


@explaining(*REGION_COLUMNS)
def region_problems(rows: Rows) -> Iterator[Message]:
    """Yield the problems of a table of regions."""
    bad_cells = list(problems(rows, REGION_COLUMNS))
    yield from bad_cells
    if bad_cells:
        return
    regions: dict[str, dict[str, list[int]]] = {}
    seen: dict[tuple[str, str, str], int] = {}
    for row, cells in enumerate(zip(*(rows.cells[c] for c in ("region", "of", "group")), strict=True)):
        region, whole, part = map(str, cells)
        if (region, whole, part) in seen:
            first = rows.numbers[seen[region, whole, part]]
            yield rows.say(
                row, "group", f"is already in row {first}", part, "give each group of a region one row"
            )
        seen.setdefault((region, whole, part), row)
        if whole in TREE and part not in TREE[whole]:
            yield rows.say(row, "group", f"is no part of {whole}", part, nearest(part, TREE[whole]))
        regions.setdefault(region, {}).setdefault(whole, []).append(row)
    share = numbers(rows, "share")
    for region, wholes in regions.items():
        for whole in (*TREE, *LINKS):
            if whole not in wholes:
                what = f"region {region} does not say how {whole} are divided"
                yield rows.say(None, "of", what, fix=f"add rows of {whole} that sum to 1")
        for whole, at in wholes.items():
            total = math.fsum(share[at])
            if abs(total - 1) > SHARE_SUM:
                what = f"the shares of {whole} in {region} must sum to 1"
                yield rows.say(at[0], "share", what, round(total, 6), "give the rest to one of them")
