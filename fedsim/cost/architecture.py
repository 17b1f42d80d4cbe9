"""Transformers as dimensions: which projections a layer has, how large, and how many parameters in all.

Nothing is loaded. Counts follow from the public `config.json` of each model, and equal the
published totals to the unit (gemma-3-270m 268,098,176; gpt2 124,439,808; ...).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from fedsim.cost.layers import Layer, Map
from fedsim.errors import ExperimentError, message

Family = Literal["llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma3", "gpt2"]
Dims = tuple[int, int]

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP = ("gate_proj", "up_proj", "down_proj")
GPT2_ATTENTION = ("c_attn", "attn.c_proj")
GPT2_MLP = ("c_fc", "mlp.c_proj")
GROUPS = ("all-linear", "attention")
NAMES = (*ATTENTION, *MLP, *GPT2_ATTENTION, *GPT2_MLP, "c_proj")
"""Every projection name LoRA can be put on; GPT-2's `c_proj` means both, as in PEFT."""


@dataclass(frozen=True)
class Architecture:
    """Dimensions of one decoder-only transformer.

    Attributes:
        family: which projections, norms and biases a layer has.
        layers, width, ffn, vocab: number of blocks, model width, inner width of the MLP, tokens.
        heads, kv_heads, head_dim: attention; k and v have `kv_heads * head_dim` outputs (GQA).
        positions: rows of a learned position table (GPT-2), else 0.
        tied: whether the head shares the embedding.
        sequence: tokens of one training sequence on the device, when nothing else is asked for.
        window: how many of the last tokens a token sees; 0: all.
        global_every: of so many layers the last has no window; 0: all have it.
        source: where the numbers come from.
    """

    family: Family
    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    positions: int = 0
    tied: bool = True
    sequence: int = 512
    window: int = 0
    global_every: int = 0
    source: str = field(default="", compare=False)

    @cached_property
    def projections(self) -> dict[str, Dims]:
        """Name -> (inputs, outputs) of every adapted-or-not linear map in one layer, the head apart."""
        d, f = self.width, self.ffn
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if self.family == "gpt2":
            return {"c_attn": (d, q + 2 * kv), "attn.c_proj": (q, d), "c_fc": (d, f), "mlp.c_proj": (f, d)}
        attention = {"q_proj": (d, q), "k_proj": (d, kv), "v_proj": (d, kv), "o_proj": (q, d)}
        return attention | {"gate_proj": (d, f), "up_proj": (d, f), "down_proj": (f, d)}

    @property
    def embedding_params(self) -> int:
        """Entries of the token embedding (and of the head)."""
        return self.vocab * self.width

    @property
    def matmul_params(self) -> int:
        """Parameters that multiply every token: all projections and the head (tied or not).

        The look-up in the embedding table is no multiplication.
        """
        return self.layers * sum(i * o for i, o in self.projections.values()) + self.embedding_params

    @property
    def params(self) -> int:
        """All parameters, norms, biases and learned positions included; a tied head counts once."""
        small = self.layers * self._norms_and_biases + self._final_norm + self.positions * self.width
        return self.matmul_params + small + (0 if self.tied else self.embedding_params)

    @property
    def _norms_and_biases(self) -> int:
        d = self.width
        if self.family == "gpt2":  # two layer norms with bias, a bias on each of the four maps
            return 4 * d + sum(out for _, out in self.projections.values())
        if self.family == "gemma3":  # four RMS norms a block, and one each on q and k per head
            return 4 * d + 2 * self.head_dim
        if self.family == "qwen3":  # one RMS norm each on q and k per head
            return 2 * d + 2 * self.head_dim
        bias = (self.heads + 2 * self.kv_heads) * self.head_dim if self.family == "qwen2" else 0
        return 2 * d + bias

    @property
    def _final_norm(self) -> int:
        return 2 * self.width if self.family == "gpt2" else self.width

    def targeted(self, targets: str | Iterable[str]) -> list[Dims]:
        """Return (inputs, outputs) of every map that `targets` picks, over all layers.

        Args:
            targets: `all-linear` (the head apart, as PEFT does), `attention`, or projection names.

        Raises:
            ExperimentError: a name that this family does not have.
        """
        wanted = (targets,) if isinstance(targets, str) else tuple(targets)
        picked: dict[str, Dims] = {}
        for name in wanted:
            for projection in self._expand(name):
                picked[projection] = self.projections[projection]
        return [picked[name] for name in self.projections if name in picked] * self.layers

    def blocks(self, targets: str | Iterable[str], r: int, adapted: Iterable[int]) -> tuple[Layer, ...]:
        """Return the layers, lowest first, with rank-r adapters on `targets` in those of index `adapted`.

        Raises:
            ExperimentError: a name that this family does not have.
        """
        picked = {
            p for name in ((targets,) if isinstance(targets, str) else targets) for p in self._expand(name)
        }
        carrying = set(adapted)
        plain, with_adapters = self._block(set(), 0), self._block(picked, r)
        return tuple(
            replace(with_adapters if i in carrying else plain, window=self._window(i))
            for i in range(self.layers)
        )

    def _window(self, layer: int) -> int:
        return 0 if self.global_every and (layer + 1) % self.global_every == 0 else self.window

    def _block(self, picked: set[str], r: int) -> Layer:
        maps = {n: Map(i, o, r if n in picked else 0) for n, (i, o) in self.projections.items()}
        width = self.heads * self.head_dim
        if self.family == "gpt2":
            attention, out, up, down = (maps[name] for name in (*GPT2_ATTENTION, *GPT2_MLP))
            return Layer((attention,), out, (up,), down, width)
        q, k, v, out = (maps[name] for name in ATTENTION)
        gate, up, down = (maps[name] for name in MLP)
        return Layer((q, k, v), out, (gate, up), down, width)

    def _expand(self, name: str) -> tuple[str, ...]:
        projections = tuple(self.projections)
        if name == "all-linear":
            return projections
        if name == "attention":
            return GPT2_ATTENTION if self.family == "gpt2" else ATTENTION
        matching = tuple(p for p in projections if p == name or p.endswith(f".{name}"))
        if not matching:
            valid = ", ".join((*GROUPS, *projections))
            what = f"a {self.family} model has no {name!r}"
            raise ExperimentError(message("targets", what, fix=f"choose from: {valid}"))
        return matching


def lora_params(dims: Iterable[Dims], r: int) -> int:
    """Return the parameters of rank-r adapters: sum of r (inputs + outputs) (LoRA, arXiv 2106.09685).

    >>> lora_params([(768, 2304)] * 12, 8)
    294912
    """
    return sum(r * (inputs + outputs) for inputs, outputs in dims)


PRESETS: dict[str, Architecture] = {
    # 256 tokens: over 262,144 words the logits of 512 tokens alone would shut 3 GB phones out.
    "gemma-3-270m": Architecture(
        "gemma3", 18, 640, 2048, 4, 1, 256, 262_144, sequence=256, window=512, global_every=6,
        source="config.json of google/gemma-3-270m; total 268,098,176",
    ),
    "gemma-3-1b": Architecture(
        "gemma3", 26, 1152, 6912, 4, 1, 256, 262_144, window=512, global_every=6,
        source="config.json of google/gemma-3-1b-pt; total 999,885,952 as in keras-hub's preset table",
    ),
    "qwen-0.5b": Architecture(
        "qwen2", 24, 896, 4864, 14, 2, 64, 151_936,
        source="config.json of Qwen/Qwen2.5-0.5B; total 494,032,768",
    ),
    "smollm2-135m": Architecture(
        "llama", 30, 576, 1536, 9, 3, 64, 49_152,
        source="config.json of HuggingFaceTB/SmolLM2-135M; total 134,515,008",
    ),
    "smollm2-360m": Architecture(
        "llama", 32, 960, 2560, 15, 5, 64, 49_152,
        source="config.json of HuggingFaceTB/SmolLM2-360M; total 361,821,120",
    ),
    "smollm3-3b": Architecture(
        "smollm3", 36, 2048, 11_008, 16, 4, 128, 128_256,
        source="config.json of HuggingFaceTB/SmolLM3-3B; total 3,075,098,624",
    ),
    "llama-3.2-1b": Architecture(
        "llama", 16, 2048, 8192, 32, 8, 64, 128_256,
        source="config.json of meta-llama/Llama-3.2-1B; total 1,235,814,400",
    ),
    "qwen2.5-1.5b": Architecture(
        "qwen2", 28, 1536, 8960, 12, 2, 128, 151_936,
        source="config.json of Qwen/Qwen2.5-1.5B; total 1,543,714,304",
    ),
    "qwen3-0.6b": Architecture(
        "qwen3", 28, 1024, 3072, 16, 8, 128, 151_936,
        source="config.json of Qwen/Qwen3-0.6B; total 596,049,920",
    ),
    "mistral-7b": Architecture(
        "mistral", 32, 4096, 14_336, 32, 8, 128, 32_000, tied=False, window=4096,
        source="config.json of mistralai/Mistral-7B-v0.1; total 7,241,732,096",
    ),
    "gpt2": Architecture(
        "gpt2", 12, 768, 3072, 12, 12, 64, 50_257, positions=1024,
        source="config.json of openai-community/gpt2; total 124,439,808",
    ),
}  # fmt: skip
"""Models the clock can charge without loading them. `sequence` is our choice, the rest is public."""
