"""`task: {kind: language}`: causal language modelling with a Hugging Face model on any text, or on chats.

The way from a configuration to a task: read, tokenise once, cut into blocks, deal the blocks to clients,
cut every client's text into windows. Chats go the way of `fedsim.tasks._chats`. Weights are not loaded here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from fedsim.config.learning import LoraConfig, NumericsConfig
from fedsim.cost.declared import Charge, charge_of
from fedsim.jobs import TaskContext
from fedsim.tasks._language.settings import LanguageSettings

if TYPE_CHECKING:
    from fedsim.tasks._chats.task import ChatTask
    from fedsim.tasks._language.task import LanguageTask


class Language(LanguageSettings):
    """Language modelling; its fields are those of `LanguageSettings`."""

    worker_modules: ClassVar[tuple[str, ...]] = ("transformers", "fedsim.training.stacked.batched")
    practises: ClassVar[bool] = True
    kind: Literal["language"] = "language"

    def build(self, context: TaskContext) -> LanguageTask | ChatTask:
        """Read, tokenise and split text or examples; weights are not loaded.

        Raises:
            DataError: text or model missing or unusable, or too little text for so many clients.
            ExperimentError: `lora.targets` names no layer of the model.
        """
        if self.format != "text":
            from fedsim.tasks._chats.build import prepare_examples

            return prepare_examples(self, context)
        from fedsim.tasks._language.build import prepare

        return prepare(self, context)

    def imported_by_workers(self, lora: LoraConfig, numerics: NumericsConfig) -> tuple[str, ...]:
        """Return the modules of the written-out path alone where the model is read without transformers."""
        from fedsim.tasks._language.build import model_name
        from fedsim.training.direct.targets import known_to_train

        if known_to_train(model_name(self), lora, numerics.training) is None:
            return self.worker_modules
        return "fedsim.training.direct.weights", "fedsim.training.stacked.batched"

    def charge(self, *, full: bool) -> Charge | None:
        """Return what `charge_as` declares."""
        return charge_of(self.charge_as, full=full, quantise=self.quantised())
