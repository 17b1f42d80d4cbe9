"""LoRA as it is practised, by stock PEFT alone: each setting of ours beside PEFT's own configuration, and a loop by hand."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

import numpy as np
import torch
from peft import LoraConfig as PeftLora
from peft import get_peft_model
from peft.optimizers import create_loraplus_optimizer

from fedsim.config.learning import LoraConfig
from fedsim.training import hub, lora

R, ALPHA = 4, 8.0


@dataclass(frozen=True)
class Practice:
    """One setting.

    Attributes:
        model: fixture of the model's folder.
        ours: of the block `lora`.
        theirs: of `peft.LoraConfig`.
        paths: which of our paths train it.
    """

    model: str
    ours: dict
    theirs: dict
    paths: tuple[str, ...] = ("fused", "swapped", "sequential")
    more: dict = field(default_factory=dict)

    @property
    def config(self):
        return LoraConfig(**{"r": R, "alpha": ALPHA, **self.ours})


# The written-out Llama has RMSNorm in float64 where transformers rounds it to float32: fused is compared on GPT-2.
BESIDE = ("swapped", "sequential")
PATTERNS = {"rank_pattern": {"c_attn": 2, r"h\.[01]\.mlp\.c_.*": 6}, "alpha_pattern": {"mlp.c_proj": 3.0}}
ALL = {**PATTERNS, "rslora": True, "dora": True, "bias": "all", "lr_ratio": 4.0}
THEIR_ALL = {**PATTERNS, "use_rslora": True, "use_dora": True, "bias": "all"}
PRACTICES = {
    "rslora": Practice("gpt2", {"rslora": True}, {"use_rslora": True}),
    "lora plus": Practice("gpt2", {"lr_ratio": 16.0}, {}),
    "layers": Practice(
        "gpt2", {"layers_to_transform": (1,), "targets": ("c_attn", "c_fc")},
        {"layers_to_transform": [1], "target_modules": ["c_attn", "c_fc"]},
    ),
    "patterns": Practice(
        "gpt2",
        {"rank_pattern": {"c_attn": 2, r"h\.1\..*c_fc": 6}, "alpha_pattern": {"mlp.c_proj": 3.0}, "rslora": True},
        {"rank_pattern": {"c_attn": 2, r"h\.1\..*c_fc": 6}, "alpha_pattern": {"mlp.c_proj": 3.0}, "use_rslora": True},
    ),
    "biases of adapted layers": Practice("gpt2", {"bias": "lora_only"}, {"bias": "lora_only"}, BESIDE),
    "all biases, LoRA+": Practice(
        "gpt2", {"bias": "all", "targets": ("c_attn",), "lr_ratio": 4.0},
        {"bias": "all", "target_modules": ["c_attn"]}, BESIDE,
    ),
    "whole modules": Practice(
        "llama", {"modules_to_save": ("lm_head", "model.norm")}, {"modules_to_save": ["lm_head", "model.norm"]},
        ("sequential",),
    ),
    "dora": Practice("llama", {"dora": True, "targets": ("q_proj", "down_proj")},
                     {"use_dora": True, "target_modules": ["q_proj", "down_proj"]}, BESIDE),
    "dora on Conv1D with biases": Practice("gpt2", {"dora": True, "bias": "lora_only"},
                                           {"use_dora": True, "bias": "lora_only"}, BESIDE),
    "all but whole modules": Practice(
        "gpt2", {**ALL, "layers_to_transform": (1,), "targets": ("c_attn", "c_fc", "c_proj")},
        {**THEIR_ALL, "layers_to_transform": [1], "target_modules": ["c_attn", "c_fc", "c_proj"]}, BESIDE,
    ),
    "all of it": Practice(
        "gpt2", {**ALL, "layers_to_transform": (0,), "targets": ("c_attn", "mlp.c_proj"), "modules_to_save": ("ln_f", "wpe")},
        {**THEIR_ALL, "layers_to_transform": [0], "target_modules": ["c_attn", "mlp.c_proj"], "modules_to_save": ["ln_f", "wpe"]},
        ("sequential",),
    ),
}  # fmt: skip


def loaded(folder, dtype=torch.float64):
    return hub.weights(folder).to(dtype)


def layout_of(folder, practice):
    return lora.layout(hub.skeleton(folder), practice.config)


def a_start(layout, folder, seed=0):
    """Where a client starts: every number away from where LoRA begins, so that all of them have a gradient."""
    rng = np.random.default_rng([3, seed])
    start = lora.initial(layout, seed)
    if layout.beside:
        first = layout.slices[layout.beside[0].name][0].start
        start[first:] = lora.pretrained(folder, layout) * rng.normal(1, 0.05, layout.size - first)
        start[first:] += rng.normal(0, 0.01, layout.size - first)
    moved = rng.normal(0, 0.05, layout.size).astype(np.float32)
    return np.where(layout.of_factor("B"), moved, start).astype(np.float32)


def stock(folder, practice, dtype=torch.float64):
    """The model that `get_peft_model` makes of PEFT's own configuration."""
    model = loaded(folder, dtype)
    theirs = {"r": R, "lora_alpha": ALPHA, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = PeftLora(**{**theirs, "fan_in_fan_out": practice.model == "gpt2", **practice.theirs})
        return get_peft_model(model, config).eval()


def place_of(name, layout):
    """The array of a layout that a parameter of stock PEFT is, by this file's own reading of its name."""
    name = name.removeprefix("base_model.model.")
    for theirs, ours in (
        (".lora_A.default.weight", ".lora_A"), (".lora_B.default.weight", ".lora_B"),
        (".lora_magnitude_vector.default.weight", ".lora_magnitude_vector"),
        (".modules_to_save.default.", "."), (".base_layer.bias", ".bias"),
    ):  # fmt: skip
        name = name.replace(theirs, ours)
    return layout.slices[name]


def trained_by_peft(folder, practice, layout, start, windows, steps, optimizer, lr):
    """Where `steps` steps of torch's own optimiser end that see all windows at once; float64, (layout.size,)."""
    model = stock(folder, practice)
    moving = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    with torch.no_grad():
        for name, p in moving:
            place, shape = place_of(name, layout)
            p.copy_(torch.from_numpy(start[place].reshape(shape)))
    ratio = practice.ours.get("lr_ratio", 1.0)
    optimise = create_loraplus_optimizer(model, optimizer, lr=lr, loraplus_lr_ratio=ratio)
    ids = torch.from_numpy(windows.astype(np.int64))
    for _ in range(steps):
        optimise.zero_grad()
        logits = model(input_ids=ids[:, :-1], use_cache=False).logits
        torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        optimise.step()
    end = np.full(layout.size, np.nan)
    for name, p in moving:
        end[place_of(name, layout)[0]] = p.detach().numpy().ravel()
    assert np.isfinite(end).all(), "stock PEFT trains less than the layout holds"
    return end
