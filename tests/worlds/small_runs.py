"""A run small enough to count by hand.

The run has four clients in two tiers (slow: 0, 1, 2; fast: 3) and seven visits:

    order client version dispatched downloaded trained landed ended outcome  staleness committed up
    0     3      0       0          1          3       4      4     landed   0         1         40
    1     0      0       0          2          12      16     16    landed   1         2         40
    2     1      0       0          2          -       -      5     offline  -         -         0
    3     3      1       4          5          7       8      8     landed   0         2         40
    4     2      1       4          -          -       -      4.5   memory   -         -         0
    5     3      2       16         17         19      20     20    landed   -         -         40   (buffer not full)
    6     1      2       16         18         28      -      30    late     -         -         10
"""

from __future__ import annotations

import math

import pandas as pd

from fedsim.config.experiment import Experiment
from fedsim.records import tables
from fedsim.records.info import Charged, RunInfo
from fedsim.records.run import Run

NAN = math.nan


EXPERIMENT = Experiment.model_validate(
    {
        "name": "small",
        "task": {"kind": "quadratic"},
        "population": {"preset": "homogeneous", "clients": 4},
        "protocol": {"kind": "buffered", "concurrency": 3, "buffer": 2},
        "budget": {"time_s": 30.0},
    }
)
INFO = RunInfo(
    name="small",
    status="done",
    seed=0,
    digest=EXPERIMENT.digest,
    started="2026-01-02T03:04:05+00:00",
    wall_s=1.5,
    versions={"python": "3.11.7"},
    executor="Inline",
    workers=1,
    end_time_s=30.0,
    saved_share=3 / 7,
    task={"model": "toy", "parameters": 1000, "corpus_sha256": "9f" * 32},
    charged=Charged(
        declared=False,
        model="toy",
        params=1000,
        adapter_params=10,
        adapter_bytes=40,
        serialized_adapter_bytes=4,
        full_model_bytes=4000,
    ),
)


def table(name: str, rows: list[tuple], columns: str) -> pd.DataFrame:
    """Rows of some columns of a table; the others hold 0, an empty name or NaN."""
    empty = {"int64": 0, "float64": NAN, "str": "", "bool": False}
    given = columns.split()
    found = [
        {**{c: empty[d] for c, d in tables.TABLES[name].items()}, **dict(zip(given, row, strict=True))}
        for row in rows
    ]
    frame = pd.DataFrame(found, columns=list(tables.TABLES[name]))
    return frame.astype(tables.TABLES[name])


def small(**changes) -> Run:
    clients = [
        (0, "tablet", "slow", 1e9, 0.5),
        (1, "tablet", "slow", 2e9, 0.5),
        (2, "tablet", "slow", 3e9, 0.1),
        (3, "laptop", "fast", 9e9, 1.0),
    ]
    visits = [
        (0, 3, 0, 0.0, 1.0, 3.0, 4.0, 4.0, "landed", 0, 1, 100, 40, 4, 9.0, 1.0),
        (1, 0, 0, 0.0, 2.0, 12.0, 16.0, 16.0, "landed", 1, 2, 100, 40, 4, 9.0, 2.0),
        (2, 1, 0, 0.0, 2.0, NAN, NAN, 5.0, "offline", -1, -1, 100, 0, 0, 3.0, 0.5),
        (3, 3, 1, 4.0, 5.0, 7.0, 8.0, 8.0, "landed", 0, 2, 100, 40, 4, 9.0, 1.0),
        (4, 2, 1, 4.0, NAN, NAN, NAN, 4.5, "memory", -1, -1, 20, 0, 0, 0.0, 0.25),
        (5, 3, 2, 16.0, 17.0, 19.0, 20.0, 20.0, "landed", -1, -1, 100, 40, 4, 9.0, 1.0),
        (6, 1, 2, 16.0, 18.0, 28.0, NAN, 30.0, "late", -1, -1, 100, 10, 4, 9.0, 2.25),
    ]
    commits = [(1, 4.0, 1, 0.0, 0, 40, 40, 100, 1.0), (2, 16.0, 2, 0.5, 1, 80, 120, 420, 4.75)]
    scores = [
        (version, time, split, metric, value)
        for version, time, ppl, bits in ((0, 0.0, 40.0, 5.0), (1, 4.0, 20.0, 4.0), (2, 16.0, 25.0, 4.5))
        for split, metric, value in (
            ("test", "perplexity", ppl),
            ("test", "bits", bits),
            ("valid", "perplexity", ppl + 1),
        )
    ]
    personal = [
        (0, "fine-tune", False, 1, "perplexity", 10.0, 8.0, 12.0, 2.0, 5),
        (1, "fine-tune", False, 0, "perplexity", 10.0, 11.0, 9.0, -1.0, 5),
        (2, "fine-tune", True, 0, "perplexity", 10.0, 10.0, 14.0, 0.0, 5),
        (3, "fine-tune", False, 2, "perplexity", 10.0, 7.0, 7.0, 3.0, 5),
    ]
    made = {
        "folder": None,
        "experiment": EXPERIMENT.plain(),
        "info": INFO,
        "clients": table("clients", clients, "client device tier flops_per_s online_share"),
        "visits": table(
            "visits",
            visits,
            "order client version dispatched_s downloaded_s trained_s landed_s ended_s outcome "
            "staleness committed_version down_bytes up_bytes serialized_up_bytes flops joules",
        ),
        "commits": table(
            "commits",
            commits,
            "version time_s updates mean_staleness max_staleness up_bytes total_up_bytes total_down_bytes "
            "total_joules",
        ),
        "scores": table("scores", scores, "version time_s split metric value"),
        "personal": table(
            "personal",
            personal,
            "client kind unseen seen metric metric_global metric_personal metric_local gain tokens",
        ),
    }
    return Run(**{**made, **changes})


def without_rows(*names: str) -> Run:
    return small(**{name: getattr(small(), name).iloc[:0] for name in names})
