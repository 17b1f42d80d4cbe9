"""Whether the machines of a cluster have the same software, said in a sentence where they have not; and their processors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from fedsim.errors import HostError, Message, message
from fedsim.executors.cluster.survey import ABSENT, Machine, instructions, processor

SAME = "install the same versions on all nodes (pip install -c constraints.txt), best from one image"


def disagreement(ours: Machine, theirs: Machine) -> Message | None:
    """Return how a node differs from the driver in what results depend on; None: not at all.

    The first difference counts: Python, then fedsim and its files, then packages.
    """
    where = f"node {theirs.host}"
    for package, version in ours.packages.items():
        other = theirs.packages.get(package, ABSENT)
        if _counting(package, other) == _counting(package, version):
            continue
        if other == ABSENT:
            what = f"{package} is not installed there, the driver on {ours.host} has {version}"
        else:
            what = f"{package} is {other} there and {version} on the driver's {ours.host}"
        return message(where, what, fix=SAME)
    if theirs.source != ours.source:
        what = (
            f"fedsim {ours.packages.get('fedsim', '')} has other files there ({theirs.source[:12]} in {theirs.folder}) "
            f"than on the driver's {ours.host} ({ours.source[:12]} in {ours.folder})"
        )
        return message(where, what, fix=SAME)
    return None


def check_alike(ours: Machine, machines: Iterable[Machine]) -> None:
    """Compare every node with the driver.

    Raises:
        HostError: some differ: one sentence a node, the first eight of them.
    """
    problems = [found for machine in machines if (found := disagreement(ours, machine)) is not None]
    if problems:
        first, *others = problems[:8]
        raise HostError(
            Message(first.what, first.where, fix=first.fix, others=tuple(_short(other) for other in others))
        )


def processors_of(machines: Sequence[Machine]) -> dict[str, int]:
    """Return the kinds of processors of some nodes, `name, instruction set`, and how many nodes have each."""
    return dict(
        Counter(kind_of(machine.processor, machine.instructions) for machine in machines).most_common()
    )


def processors_here() -> dict[str, int]:
    """Return the processor of this machine."""
    name, flags = processor()
    return {kind_of(name, instructions(flags)): 1}


def kind_of(name: str, chosen: str) -> str:
    """Return a kind of processor in words.

    >>> kind_of("Example 7000", "AVX2")
    'Example 7000, AVX2'
    """
    return f"{name}, {chosen}"


def _counting(package: str, version: str) -> str:
    """Return what of a version must be equal: of Python the first two numbers, of others all but the build (`+cpu`).

    >>> _counting("python", "3.11.9"), _counting("torch", "2.13.0+cpu")
    ('3.11', '2.13.0')
    """
    return ".".join(version.split(".")[:2]) if package == "python" else version.partition("+")[0]


def _short(problem: Message) -> Message:
    return Message(problem.what, problem.where)
