"""GPT-2 and Llama as their `config.json` says them: every matrix, parameter and size, without a model.

A configuration is read only where each of its keys is known here and has the plain value: whatever is unusual, new or
merely not listed gives None, and the model goes the way of all others, through transformers, which also says what is wrong.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Family = Literal["gpt2", "llama"]


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
        family: `gpt2` or `llama`.
        layers, width, heads, inner: layers, numbers of a hidden state, heads of the queries, width of the MLP.
        kv_heads, head_dim: heads of keys and values; numbers of a head.
        vocabulary, positions: tokens that it knows, and how many it reads at once.
        eps: of its normalisations.
        tied: the head is the embedding.
        theta: base of RoPE's angles (llama); scaled: queries are divided by the root of `head_dim`.
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
    theta: float = 0.0
    scaled: bool = True

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
            if gpt2:
                shapes[f"{m.name}.bias"] = (m.outputs,)
        norms = [
            f"transformer.h.{i}.{leaf}" if gpt2 else f"model.layers.{i}.{leaf}"
            for i in range(self.layers)
            for leaf in (("ln_1", "ln_2") if gpt2 else ("input_layernorm", "post_attention_layernorm"))
        ]
        for name in [*norms, "transformer.ln_f" if gpt2 else "model.norm"]:
            shapes[f"{name}.weight"] = (self.width,)
            if gpt2:
                shapes[f"{name}.bias"] = (self.width,)
        shapes[self.embedding] = (self.vocabulary, self.width)
        if gpt2:
            shapes["transformer.wpe.weight"] = (self.positions, self.width)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocabulary, self.width)
        return shapes

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


def architecture(settings: Mapping[str, object]) -> Architecture | None:
    """Return what a `config.json` says, None where it says anything that is not known here."""
    reader = {"gpt2": _gpt2, "llama": _llama}.get(str(settings.get("model_type")))
    if reader is None:
        return None
    made = reader(_Settings(settings))
    return made if made is not None and made.heads * made.layers * made.vocabulary > 0 else None


_IGNORED = frozenset({
    "_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "initializer_range", "model_type",
    "pad_token_id", "torch_dtype", "transformers_version", "use_cache",
})  # fmt: skip
"""Keys that say nothing about what a model computes."""
_IGNORED_GPT2 = frozenset({
    "attn_pdrop", "embd_pdrop", "n_ctx", "resid_pdrop", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj", "task_specific_params",
})  # fmt: skip
_IGNORED_LLAMA = frozenset({"attention_dropout", "pretraining_tp"})


class _Settings:
    """A configuration that is taken apart: what has not been asked for at the end was not known."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self._left = {key: value for key, value in settings.items() if key not in _IGNORED}
        self.architectures = settings.get("architectures")

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number above 0; 0 where there is none and no default."""
        value = self._left.pop(key, None)
        if value is None:
            return default or 0
        return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0

    def number(self, key: str, default: float) -> float:
        """Return a number, NaN where the value is none."""
        value = self._left.pop(key, default)
        good = isinstance(value, int | float) and not isinstance(value, bool)
        return float(value) if good else math.nan  # type: ignore[arg-type]  # a number by now

    def is_one_of(self, key: str, *values: object, default: object) -> bool:
        """Tell whether a key has one of some values, of the same type."""
        value = self._left.pop(key, default)
        return any(type(value) is type(other) and value == other for other in values)

    def flag(self, key: str, *, default: bool) -> bool | None:
        """Return a truth value, None where the value is none."""
        value = self._left.pop(key, default)
        return value if isinstance(value, bool) else None

    def rope_theta(self) -> float:
        """Return the base of RoPE's angles; 0 where they are not the plain ones. Older files have it beside `rope_scaling`."""
        twice = {"rope_parameters", "rope_theta"} <= self._left.keys()
        older = {"rope_theta": self._left.pop("rope_theta", 1e4), "rope_type": "default"}
        rope, scaling = self._left.pop("rope_parameters", older), self._left.pop("rope_scaling", None)
        if twice or scaling is not None or not isinstance(rope, dict) or rope.keys() != older.keys():
            return 0.0
        if rope["rope_type"] != "default":
            return 0.0
        theta = rope["rope_theta"]
        return float(theta) if isinstance(theta, int | float) and not isinstance(theta, bool) else 0.0

    def rest(self, ignored: frozenset[str]) -> set[str]:
        """Return the keys that nobody has asked for."""
        return self._left.keys() - ignored


def _gpt2(settings: _Settings) -> Architecture | None:
    width, heads = settings.count("n_embd"), settings.count("n_head")
    if not width or not heads or width % heads:
        return None
    scaled, tied = (settings.flag(key, default=True) for key in ("scale_attn_weights", "tie_word_embeddings"))
    eps = settings.number("layer_norm_epsilon", 1e-5)
    made = Architecture(
        "gpt2",
        layers=settings.count("n_layer"),
        width=width,
        heads=heads,
        inner=settings.count("n_inner", 4 * width),
        kv_heads=heads,
        head_dim=width // heads,
        vocabulary=settings.count("vocab_size"),
        positions=settings.count("n_positions"),
        eps=eps,
        tied=bool(tied),
        scaled=bool(scaled),
    )
    plain = (
        settings.architectures == ["GPT2LMHeadModel"],
        settings.is_one_of("activation_function", "gelu_new", "gelu_pytorch_tanh", default="gelu_new"),
        *(
            settings.is_one_of(key, False, default=False)  # a value, not a switch
            for key in ("add_cross_attention", "reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx")
        ),
        tied is not None and scaled is not None and eps > 0,
        made.inner * made.positions > 0,
    )
    return made if all(plain) and not settings.rest(_IGNORED_GPT2) else None


def _llama(settings: _Settings) -> Architecture | None:
    width, heads = settings.count("hidden_size"), settings.count("num_attention_heads")
    if not width or not heads or width % heads:
        return None
    theta, tied = settings.rope_theta(), settings.flag("tie_word_embeddings", default=False)
    eps = settings.number("rms_norm_eps", 1e-6)
    kv_heads = settings.count("num_key_value_heads", heads)
    head_dim = settings.count("head_dim", width // heads)
    made = Architecture(
        "llama",
        layers=settings.count("num_hidden_layers"),
        width=width,
        heads=heads,
        inner=settings.count("intermediate_size"),
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=settings.count("vocab_size"),
        positions=settings.count("max_position_embeddings"),
        eps=eps,
        tied=bool(tied),
        theta=theta,
    )
    plain = (
        settings.architectures == ["LlamaForCausalLM"],
        settings.is_one_of("hidden_act", "silu", default="silu"),
        settings.is_one_of("attention_bias", False, default=False),  # a value, not a switch
        settings.is_one_of("mlp_bias", False, default=False),  # a value, not a switch
        theta > 0 and tied is not None and eps > 0,
        kv_heads > 0 and heads % max(1, kv_heads) == 0 and head_dim > 0 and head_dim % 2 == 0,
        made.inner * made.positions > 0,
    )
    return made if all(plain) and not settings.rest(_IGNORED_LLAMA) else None
