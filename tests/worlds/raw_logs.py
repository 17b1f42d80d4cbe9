"""Small logs in the layouts in which others publish theirs, and a file of every format of rates."""

from __future__ import annotations

import json

HEADER = (
    "Timestamp,Longitude,Latitude,Speed,Operatorname,CellID,NetworkMode,RSRP,RSRQ,SNR,CQI,RSSI,DL_bitrate,UL_bitrate,"
    "State,PINGAVG,PINGMIN,PINGMAX,PINGSTDEV,PINGLOSS,CELLHEX,NODEHEX,LACHEX,RAWCELLID,NRxRSRP,NRxRSRQ"
)
"""As published with the 5G set."""


def second(time, down, up):
    return f"{time},-8.4,51.9,0,B,12,5G,-93,-13,6.0,9,-,{down},{up},D,-,-,-,-,-,C,A9E,9CBA,11019276,-,-"


G_NETTRACK = "\n".join(
    [
        HEADER,
        second("2019.12.16_13.40.04", 8, 80),
        second("2019.12.16_13.40.05", 16, 0),
        second("2019.12.16_13.40.05", 32, 0),  # the logger writes a second twice at times
        second("2019.12.16_13.40.08", 0, 16),
    ]
)


GHENT = """\
1453121790686 39287 51.0386528885778 3.73220785642186 2493100 1000
1453121791687 40288 51.0386532820580 3.73222847166054 2763504 1001
1453121792686 41287 51.0386553301824 3.73225142858955 2728896 0999
1453121793686 42287 51.0386567711171 3.73227435543338 1954600 1000
"""
"""The example of users.ugent.be/~jvdrhoof/dataset-4g."""


LUMOS_HEADER = (
    "run_num,seq_num,abstractSignalStr,latitude,longitude,movingSpeed,compassDirection,nrStatus,lte_rssi,lte_rsrp,"
    "lte_rsrq,lte_rssnr,nr_ssRsrp,nr_ssRsrq,nr_ssSinr,Throughput,mobility_mode,trajectory_direction,tower_id"
)


def lumos(run, seq, mbps):
    return f"{run},{seq},2,44.97,-93.26,0.1,150,NOT_RESTRICTED,-61,-94,-14,2147483647,,,,{mbps},driving,CW,8"


LUMOS = "\n".join(
    [LUMOS_HEADER, *(lumos(*row) for row in ((1, 1, 8), (1, 2, 16), (1, 4, 0), (2, 1, 80), (3, 1, 0)))]
)


EXAMPLES = {
    "g-nettrack": ("a.csv", G_NETTRACK),
    "ghent": ("a.log", GHENT),
    "lumos5g": ("b.csv", LUMOS),
    "kbps": ("c.csv", "# source: a lab\ntime_s,kbps\n0,8\n1,8\n"),
    "pensieve": ("d.log", "0.0 1.5\n1.0 2.5\n"),
    "mahimahi": ("e.down", "1\n2\n"),
    "sabre": ("f.json", json.dumps([{"duration_ms": 10, "bandwidth_kbps": 8, "latency_ms": 1}])),
    "flash-states": ("g.json", json.dumps({"1": {"messages": "x"}})),
    "flash-speeds": (
        "h.json",
        json.dumps({"1": {"down_u": 5, "down_sigma": 1, "up_u": 1, "up_sigma": 1}}),
    ),
}
