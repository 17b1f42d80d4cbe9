"""What does not go with LoRA as it is practised: what a task, a charged model or the numerics cannot do."""

from __future__ import annotations

from pathlib import Path

from fedsim.clock.components import Parts
from fedsim.config.experiment import Experiment
from fedsim.config.problem import Problem


def practice(experiment: Experiment, parts: Parts) -> list[Problem]:
    """Return what is wrong with the settings of `fedsim.config.lora.practice.LoraPractice` beside others."""
    lora, problems = experiment.lora, list[Problem]()
    if lora.full:  # none of them has a meaning, which is said elsewhere
        return problems
    if not parts.task.practises:
        what = f"has no meaning for the task {parts.task.kind}, which trains plain LoRA"
        return [
            Problem(
                ("lora", name), what, f"remove lora.{name}, or set task.kind: language", getattr(lora, name)
            )
            for name in lora.practised
            if name != "rslora"
        ]
    start, measures = lora.start_from, list(experiment.memory.measures)
    if start is not None and not (Path(start) / "adapter_config.json").is_file():
        fix = "give the folder that a run or PEFT's save_pretrained wrote; it is taken from the YAML file's folder"
        what = "is no folder of a saved adapter: it has no adapter_config.json"
        problems.append(Problem(("lora", "start_from"), what, fix, start))
    if lora.beside and experiment.numerics.dtype == "bfloat16":
        what = "is too coarse for what is trained beside the factors (lora.dora, bias, modules_to_save)"
        problems.append(Problem(("numerics", "dtype"), what, "set numerics.dtype: float32", "bfloat16"))
    if lora.beside and experiment.numerics.training == "fused":
        what = "the written-out decoders train the factors alone, and not lora.dora, bias and modules_to_save"
        problems.append(Problem(("numerics", "training"), what, "set numerics.training: auto", "fused"))
    if lora.modules_to_save and experiment.numerics.training == "swapped":
        what = "modules that are trained whole (lora.modules_to_save) train one client at a time"
        fix = "set numerics.training: auto or sequential"
        problems.append(Problem(("numerics", "training"), what, fix, "swapped"))
    if "rank" in measures and lora.patterned:
        what = (
            "rank asks for fewer slots of all modules, and rank_pattern and alpha_pattern give them by module"
        )
        problems.append(Problem(("memory", "when_short"), what, "remove rank, or both patterns", measures))
    return [*problems, *_charged(experiment, parts)]


def _charged(experiment: Experiment, parts: Parts) -> list[Problem]:
    """Return what is not known of a declared model."""
    lora, charge = experiment.lora, parts.task.charge(full=False)
    if charge is None:
        return []
    unknown = {
        "bias": lora.bias != "none",
        "modules_to_save": bool(lora.modules_to_save),
        "dora": lora.dora and not charge.shape.blocks,
    }
    what = "has no size in the model that task.charge_as declares"
    return [
        Problem(("lora", name), what, f"remove lora.{name}, or task.charge_as", getattr(lora, name))
        for name, asked in unknown.items()
        if asked
    ]
