"""GPT-2 and Llama's kind by their numbers: every matrix, parameter and size, without a model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Family = Literal["gpt2", "llama", "mistral", "qwen2", "qwen3", "smollm3", "gemma3_text"]
"""As configurations call it (`model_type`)."""
PLAIN, FULL, WINDOWED = "plain", "full_attention", "sliding_attention"
"""Names of RoPE's angles: the one kind of most families, and Gemma 3's, one of each kind of layer."""


@dataclass(frozen=True)
class Reach:
    """What a layer makes of the places of tokens.

    Attributes:
        rotation: name of the angles by which its queries and keys are turned; None: they are not (NoPE).
        window: how many of the last tokens a token sees, itself included; 0: all.
    """

    rotation: str | None = None
    window: int = 0


@dataclass(frozen=True)
class Rope:
    """RoPE's angles (arXiv 2104.09864).

    Attributes:
        theta: their base.
        stretch: Llama 3's: factor, low and high frequency factor, positions of the first training; None: plain angles.
    """

    theta: float
    stretch: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Matrix:
    """A weight matrix that can carry an adapter; `conv1d` is GPT-2's transposed one."""

    name: str
    inputs: int
    outputs: int
    conv1d: bool


@dataclass(frozen=True)
class Architecture:
    """A causal language model of a written-out family.

    Attributes:
        family: how its configuration calls it.
        layers, width, heads, inner: layers, numbers of a hidden state, heads of the queries, width of the MLP.
        kv_heads, head_dim: heads of keys and values; numbers of a head.
        vocabulary, positions: tokens that it knows, and how many it reads at once.
        eps: of its normalisations.
        tied: the head is the embedding.
        scale: of the products of queries and keys.
        reaches: what each layer makes of places (all but GPT-2).
        ropes: (name, angles) that the layers ask for.
        biased: matrices that have a bias, by the end of their names (all but GPT-2, where all have).
    """

    family: Family
    layers: int
    width: int
    heads: int
    inner: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    positions: int
    eps: float
    tied: bool
    scale: float
    reaches: tuple[Reach, ...] = ()
    ropes: tuple[tuple[str, Rope], ...] = ()
    biased: tuple[str, ...] = ()

    @property
    def matrices(self) -> list[Matrix]:
        """The matrices that may carry an adapter, in the model's order; the head is none."""
        width, inner = self.width, self.inner
        sides: tuple[tuple[str, int, int], ...]
        if self.family == "gpt2":
            sides = (
                ("attn.c_attn", width, 3 * width),
                ("attn.c_proj", width, width),
                ("mlp.c_fc", width, inner),
                ("mlp.c_proj", inner, width),
            )
            return [
                Matrix(f"transformer.h.{i}.{leaf}", a, b, conv1d=True)
                for i in range(self.layers)
                for leaf, a, b in sides
            ]
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        sides = (
            ("self_attn.q_proj", width, queries),
            ("self_attn.k_proj", width, keys),
            ("self_attn.v_proj", width, keys),
            ("self_attn.o_proj", queries, width),
            ("mlp.gate_proj", width, inner),
            ("mlp.up_proj", width, inner),
            ("mlp.down_proj", inner, width),
        )
        return [
            Matrix(f"model.layers.{i}.{leaf}", a, b, conv1d=False)
            for i in range(self.layers)
            for leaf, a, b in sides
        ]

    @property
    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Name -> shape of every parameter; a head that is the embedding is not named again."""
        shapes: dict[str, tuple[int, ...]] = {}
        gpt2 = self.family == "gpt2"
        for m in self.matrices:
            shapes[f"{m.name}.weight"] = (m.inputs, m.outputs) if m.conv1d else (m.outputs, m.inputs)
            if gpt2 or m.name.rpartition(".")[2] in self.biased:
                shapes[f"{m.name}.bias"] = (m.outputs,)
        at = "transformer.h" if gpt2 else "model.layers"
        for i in range(self.layers):
            shapes |= {f"{at}.{i}.{leaf}.weight": (width,) for leaf, width in self._norms.items()}
            if gpt2:
                shapes |= {f"{at}.{i}.{leaf}.bias": (width,) for leaf, width in self._norms.items()}
        shapes["transformer.ln_f.weight" if gpt2 else "model.norm.weight"] = (self.width,)
        if gpt2:
            shapes["transformer.ln_f.bias"] = (self.width,)
            shapes["transformer.wpe.weight"] = (self.positions, self.width)
        shapes[self.embedding] = (self.vocabulary, self.width)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocabulary, self.width)
        return shapes

    @property
    def _norms(self) -> dict[str, int]:
        """Name -> numbers of a layer's norms."""
        if self.family == "gpt2":
            return {"ln_1": self.width, "ln_2": self.width}
        norms = dict.fromkeys(("input_layernorm", "post_attention_layernorm"), self.width)
        if self.family == "gemma3_text":
            norms |= dict.fromkeys(("pre_feedforward_layernorm", "post_feedforward_layernorm"), self.width)
        if self.family in ("qwen3", "gemma3_text"):
            norms |= dict.fromkeys(("self_attn.q_norm", "self_attn.k_norm"), self.head_dim)
        return norms

    @property
    def embedding(self) -> str:
        """Name of the embedding's weight."""
        return "transformer.wte.weight" if self.family == "gpt2" else "model.embed_tokens.weight"

    @property
    def params(self) -> int:
        """Parameters, tied ones once."""
        return sum(math.prod(shape) for shape in self.parameters.values())

    @property
    def head_params(self) -> int:
        """Weights of the head, tied or not."""
        return self.vocabulary * self.width
