"""What of an experiment decides whether its parts go together, and what a limit on that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fedsim.aggregators._base import Traits
from fedsim.personal._base import Personal

Path = tuple[str, ...]
Refusal = tuple[str, str]
"""A sentence, and a way out."""


@dataclass(frozen=True)
class Choice:
    """What of an experiment decides whether its parts go together.

    Attributes:
        rule, traits: kind and traits of the aggregation rule.
        protocol: kind of the protocol, with the setting that matters, if one does.
        stale: whether the protocol lets updates get stale; True where it does not say.
        blends: whether the protocol makes the shared model of several by itself.
        cuts_ranks: whether the protocol asks clients for fewer rank slots than they have.
        ranks: `lora.rank_by`.
        depths: whether clients may have adapters in their last layers only (`lora.depth_by`, `lora.depth`).
        optimizer: kind of the server optimiser.
        top_k: whether only the largest entries of an update are sent.
        feedback: whether clients add what one message left out to the next.
        average: whether an average of the versions is scored and kept (`evaluate.ema`).
        best: whether the best version's adapter is kept (`evaluate.keep_best`).
        personal: the component; None for none.
        whole: whether whole models are trained, without factors.
        dora: whether the lengths of the adapted rows are trained.
        bias: which biases are trained beside the factors.
        saved: modules that are trained whole beside them.
        patterned: whether modules may differ in rank or alpha.
        started: whether version 0 is a saved adapter.
        quantised: whether the frozen weights are quantised (`task.quantise`).
    """

    rule: str
    traits: Traits
    protocol: str = "synchronous"
    stale: bool = False
    blends: bool = False
    cuts_ranks: bool = False
    ranks: str = "fixed"
    depths: bool = False
    optimizer: str = "none"
    top_k: bool = False
    feedback: bool = False
    average: bool = False
    best: bool = False
    personal: Personal | None = None
    whole: bool = False
    dora: bool = False
    bias: str = "none"
    saved: tuple[str, ...] = ()
    patterned: bool = False
    started: bool = False
    quantised: bool = False

    @property
    def beside(self) -> bool:
        """Whether anything is trained beside the factors."""
        return self.dora or self.bias != "none" or bool(self.saved)


@dataclass(frozen=True)
class Limit:
    """What does not go together: `asked` and not `able`.

    Attributes:
        path: the key that asks for it.
        asked: whether a choice asks for what is limited.
        able: whether the rest of that choice can do it.
        what: why not; may name fields of the choice in braces.
        fix: a way out.
    """

    path: Path
    asked: Callable[[Choice], bool]
    able: Callable[[Choice], bool]
    what: str
    fix: str
