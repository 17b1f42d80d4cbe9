"""`task: {kind: language}`: causal language modelling with a Hugging Face model on any text.

The way from a configuration to a task: read, tokenise once, cut into blocks, deal the blocks to clients,
cut every client's text into windows. Weights are not loaded here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedsim.cost.declared import Charge, charge_of
from fedsim.jobs import TaskContext
from fedsim.tasks._language.settings import LanguageSettings

if TYPE_CHECKING:
    from fedsim.tasks._language.task import LanguageTask


class Language(LanguageSettings):
    """Language modelling; its fields are those of `LanguageSettings`."""

    worker_modules: ClassVar[tuple[str, ...]] = ("transformers", "fedsim.training.stacked.batched")
    kind: Literal["language"] = "language"

    def build(self, context: TaskContext) -> LanguageTask:
        """Read, tokenise and split the text; weights are not loaded.

        Raises:
            DataError: text or model missing or unusable, or too little text for so many clients.
            ExperimentError: `lora.targets` names no layer of the model.
        """
        from fedsim.tasks._language.build import prepare

        return prepare(self, context)

    def charge(self, *, full: bool) -> Charge | None:
        """Return what `charge_as` declares."""
        return charge_of(self.charge_as, full=full)
