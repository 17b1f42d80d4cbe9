"""Plans of eight unequal devices and their runs: to hold two runs of one experiment against each other."""

from __future__ import annotations

from fedsim.cost.formulas import train_memory_bytes
from fedsim.cost.shape import with_rank_share
from worlds import plan
from worlds.whole_runs import finished

TRAIN_S = [0.5, 1.0, 2.0, 3.0, 4.5, 5.0, 8.0, 13.0]
BUFFERED = {"kind": "buffered", "concurrency": 5, "buffer": 3}
DEADLINE = {"kind": "synchronous", "cohort": 3, "over_select": 1.5, "deadline_s": 6.0}

UNEQUAL = {"r": 4, "alpha": 8.0, "rank_by": "memory", "ranks": [1, 2, 4]}
RULES = {
    "fedit": {"lora": UNEQUAL},
    "flora": {"lora": UNEQUAL},  # moves the base; catch-ups depend on who took part
    "flexlora": {"lora": UNEQUAL},
    "fedex": {"lora": {"r": 4, "alpha": 8.0}},
    "rolora": {"lora": UNEQUAL},
    "fedsvd": {"lora": {"r": 4, "alpha": 8.0}},
}
"""Rules whose bytes or ranks are not the same for everybody and always."""


def planned(protocol, *, delay_s=0.0, layout="whole", **blocks):
    base = {"personal": {"kind": "fine-tune"}, "budget": {"commits": 12}, "evaluate": {"every_commits": 2}}
    task = {"kind": "quadratic", "delay_s": delay_s, "layout": layout}
    return plan(protocol, TRAIN_S, task=task, **{**base, **blocks})


def ruled(protocol, rule, **blocks):
    """A plan in which devices have room for ranks 1, 2 and 4 in turn, if the rule can do with that."""
    asked = {"aggregator": {"kind": rule}, "layout": "lora", **RULES[rule], **blocks}
    made = planned(protocol, **asked)
    needs = [train_memory_bytes(with_rank_share(made.shape, rank, 4)) for rank in (1, 2, 4)]
    memory = [needs[client % 3] if "rank_by" in RULES[rule]["lora"] else 1e12 for client in range(8)]
    return planned(protocol, memory=memory, **asked)


def with_vector(plan_, executor=None):
    """The run and the final vector, inline or on an executor, which is closed afterwards."""
    run, model = finished(plan_, executor)
    return run, model.adapter.vector
