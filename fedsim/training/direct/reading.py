"""What a `config.json` says of a model of a family that is written out here.

It is read only where each of its keys is known here and has the plain value: whatever is unusual, new or merely not
listed gives None, and the model goes the way of all others, through transformers, which also says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import get_args

from fedsim.training.direct.architecture import (
    FULL,
    PLAIN,
    WINDOWED,
    Architecture,
    Family,
    Reach,
    Rope,
)
from fedsim.training.direct.settings import Settings, UnusualError, rope_of

CLASSES: dict[Family, str] = {
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "smollm3": "SmolLM3ForCausalLM",
    "gemma3_text": "Gemma3ForCausalLM",
}
"""The one architecture of each family, by its class in transformers."""
TIED = frozenset({"smollm3", "gemma3_text"})
"""Families whose head is the embedding where nothing is said."""
HEAD_DIM = {"qwen3": 128, "gemma3_text": 256}
"""Numbers of a head where nothing is said; of the others the width over the heads."""
Reaches = tuple[Reach, ...]
Ropes = tuple[tuple[str, Rope], ...]
IGNORED_GPT2 = (
    "attn_pdrop", "embd_pdrop", "n_ctx", "resid_pdrop", "summary_activation", "summary_first_dropout",
    "summary_proj_to_labels", "summary_type", "summary_use_proj", "task_specific_params",
)  # fmt: skip


def architecture(settings: Mapping[str, object]) -> Architecture | None:
    """Return what a `config.json` says, None where it says anything that is not known here."""
    family = settings.get("model_type")
    known: Family | None = next((name for name in get_args(Family) if name == family), None)
    if known is None or settings.get("architectures") != [CLASSES[known]]:
        return None
    try:
        return _gpt2(Settings(settings)) if known == "gpt2" else _rotary(Settings(settings), known)
    except UnusualError:
        return None


def _gpt2(settings: Settings) -> Architecture:
    width, heads = settings.count("n_embd"), settings.count("n_head")
    if width % heads:
        raise UnusualError("n_head")
    settings.expect("activation_function", "gelu_new", "gelu_pytorch_tanh", default="gelu_new")
    for key in ("add_cross_attention", "reorder_and_upcast_attn", "scale_attn_by_inverse_layer_idx"):
        settings.expect(key, False, default=False)  # a value, not a switch
    scaled = settings.flag("scale_attn_weights", default=True)
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
        eps=settings.number("layer_norm_epsilon", 1e-5),
        tied=settings.flag("tie_word_embeddings", default=True),
        scale=(width // heads) ** -0.5 if scaled else 1.0,
    )
    settings.finish(*IGNORED_GPT2)
    return made


def _rotary(settings: Settings, family: Family) -> Architecture:
    """Read a model of Llama's kind; what differs by family is read by `_LAYERS`."""
    width, heads = settings.count("hidden_size"), settings.count("num_attention_heads")
    kv_heads = settings.count("num_key_value_heads", heads)
    head_dim = settings.count("head_dim", HEAD_DIM.get(family, max(1, width // heads)))
    if width % heads or heads % kv_heads or head_dim % 2:
        raise UnusualError("num_attention_heads")
    layers = settings.count("num_hidden_layers")
    gemma = family == "gemma3_text"
    if gemma:
        settings.expect("hidden_activation", "gelu_pytorch_tanh", default="gelu_pytorch_tanh")
    else:
        settings.expect("hidden_act", "silu", default="silu")
    settings.expect("attention_bias", False, default=False)  # a value, not a switch
    settings.expect("mlp_bias", False, default=False)
    reaches, ropes = _LAYERS[family](settings, layers)
    made = Architecture(
        family,
        layers=layers,
        width=width,
        heads=heads,
        inner=settings.count("intermediate_size"),
        kv_heads=kv_heads,
        head_dim=head_dim,
        vocabulary=settings.count("vocab_size"),
        positions=settings.count("max_position_embeddings"),
        eps=settings.number("rms_norm_eps", 1e-6),
        tied=settings.flag("tie_word_embeddings", default=family in TIED),
        scale=(settings.number("query_pre_attn_scalar", 256) if gemma else head_dim) ** -0.5,
        reaches=reaches,
        ropes=ropes,
        biased=("q_proj", "k_proj", "v_proj") if family == "qwen2" else (),
    )
    settings.finish("attention_dropout", "pretraining_tp", "is_llama_config")
    return made


def _llama(settings: Settings, layers: int) -> tuple[Reaches, Ropes]:
    settings.expect("rope_interleaved", False, default=False)
    return (Reach(PLAIN),) * layers, ((PLAIN, settings.rope(1e4)),)


def _mistral(settings: Settings, layers: int) -> tuple[Reaches, Ropes]:
    window = settings.raw("sliding_window", 4096)
    return (Reach(PLAIN, 0 if window is None else _window(window)),) * layers, ((PLAIN, settings.rope(1e4)),)


def _qwen(settings: Settings, layers: int) -> tuple[Reaches, Ropes]:
    window, first = settings.raw("sliding_window", 4096), settings.raw("max_window_layers", 28)
    if not settings.flag("use_sliding_window", default=False):
        window = None
    settings.expect("use_mrope", False, default=False)
    kinds = settings.texts("layer_types", layers, (FULL, WINDOWED))
    if kinds is None:
        if not isinstance(first, int):
            raise UnusualError("max_window_layers")
        kinds = tuple(WINDOWED if window is not None and i >= first else FULL for i in range(layers))
    return tuple(_plain_reach(kind, window) for kind in kinds), ((PLAIN, settings.rope(1e4)),)


def _smollm3(settings: Settings, layers: int) -> tuple[Reaches, Ropes]:
    window, used = settings.raw("sliding_window"), settings.flag("use_sliding_window", default=False)
    every = settings.count("no_rope_layer_interval", 4)
    placed = settings.raw("no_rope_layers")
    if placed is None:
        placed = [int((i + 1) % every != 0) for i in range(layers)]
    if not isinstance(placed, list) or len(placed) < layers or not all(type(x) is int for x in placed):
        raise UnusualError("no_rope_layers")
    kinds = settings.texts("layer_types", layers, (FULL, WINDOWED))
    if kinds is None:
        kinds = tuple(WINDOWED if used and window is not None and not x else FULL for x in placed[:layers])
    settings.raw("max_window_layers")
    reaches = [_plain_reach(kind, window) for kind in kinds]
    turned = zip(reaches, placed, strict=False)
    return (
        tuple(reach if x else Reach(None, reach.window) for reach, x in turned),
        ((PLAIN, settings.rope(2e6)),),
    )


def _gemma3(settings: Settings, layers: int) -> tuple[Reaches, Ropes]:
    for key in ("final_logit_softcapping", "attn_logit_softcapping"):
        settings.expect(key, None, default=None)
    settings.expect("use_bidirectional_attention", False, None, default=False)
    window = settings.raw("sliding_window", 4096)
    kinds = settings.texts("layer_types", layers, (FULL, WINDOWED))
    pattern, saved = settings.count("sliding_window_pattern", 6), settings.raw("_sliding_window_pattern")
    if kinds is None:
        if saved is not None:
            raise UnusualError("_sliding_window_pattern")
        kinds = tuple(WINDOWED if (i + 1) % pattern else FULL for i in range(layers))
    reaches = tuple(Reach(kind, _window(window) if kind == WINDOWED else 0) for kind in kinds)
    return reaches, _gemma3_ropes(settings)


def _gemma3_ropes(settings: Settings) -> Ropes:
    """Return both kinds of angles; older files have their bases beside `rope_scaling`."""
    ropes = settings.raw("rope_parameters")
    if ropes is None:
        settings.expect("rope_scaling", None, default=None)
        bases = settings.number("rope_theta", 1e6), settings.number("rope_local_base_freq", 1e4)
        return tuple(zip((FULL, WINDOWED), map(Rope, bases), strict=True))
    if not isinstance(ropes, dict) or ropes.keys() != {FULL, WINDOWED}:
        raise UnusualError("rope_parameters")
    return tuple((kind, rope_of(ropes[kind])) for kind in (FULL, WINDOWED))


def _plain_reach(kind: str, window: object) -> Reach:
    return Reach(PLAIN, _window(window) if kind == WINDOWED else 0)


def _window(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
        raise UnusualError("sliding_window")
    return value


_LAYERS: dict[Family, Callable[[Settings, int], tuple[Reaches, Ropes]]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen,
    "qwen3": _qwen,
    "smollm3": _smollm3,
    "gemma3_text": _gemma3,
}
