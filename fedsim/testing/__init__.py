"""Contract suites for components of one's own; uses everything, and nothing in fedsim uses it.

Plain functions that raise an AssertionError with the property that fails:

    from fedsim.testing import check_aggregator
    check_aggregator(Median(kind="my_rules:Median"))

None of them needs pytest or a GPU, and none reads a file. A rule is run through short histories, a protocol through a
run of the quadratic task, the others by themselves.
"""

from __future__ import annotations

from fedsim.testing.executors import check_executor
from fedsim.testing.optimizers import check_optimizer
from fedsim.testing.personal import check_personal
from fedsim.testing.protocols import check_protocol
from fedsim.testing.rules import check_aggregator
from fedsim.testing.samplers import check_sampler
from fedsim.testing.tasks import check_task
from fedsim.testing.torch_tasks import check_torch_task

__all__ = [
    "check_aggregator",
    "check_executor",
    "check_optimizer",
    "check_personal",
    "check_protocol",
    "check_sampler",
    "check_task",
    "check_torch_task",
]
