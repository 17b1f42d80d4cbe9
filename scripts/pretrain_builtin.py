"""Pretrain the model that fedsim ships: a 0.38 M parameter Llama on the code of Python's standard library.

    python scripts/pretrain_builtin.py                      # 12,000 steps: about 12 CPU minutes on one thread
    python scripts/pretrain_builtin.py --steps 50 --out /tmp/tiny

The federated text (`fedsim.builtin.documents()`) is left out: the packages come from the same constant. Comments and
docstrings are left out too, so that the model knows code and hardly any prose: a base that has read the docstrings is
so good at the reference topics already (perplexity 13.4) that a fine-tuning of minutes has little to show. One core
module in 40 is held out to score the result. The run is seeded; it repeats to the bit on one machine with one
version of Python and torch, not across them.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import platform
import time
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fedsim.builtin import (
    MODEL_FILES,
    PACKAGES,
    TOPICS,
    Document,
    corpus_hash,
    documents,
    model_folder,
    sources,
    standard_library,
)
from fedsim.rng import seed_of

if TYPE_CHECKING:
    import torch

# Federated text first; then what is not core library: tests, GUI programs, tables, tools that newer versions drop.
HELD_OUT: Final = frozenset({*PACKAGES, TOPICS})
NOT_CORE: Final = frozenset(
    [
        "__pycache__",
        "distutils",
        "encodings",
        "ensurepip",
        "idlelib",
        "lib-dynload",
        "lib2to3",
        "pydoc_data",
        "site-packages",
        "dist-packages",
        "test",
        "tkinter",
        "turtledemo",
    ]
)
VOCAB: Final = 512
CONTEXT: Final = 128
END: Final = "<|endoftext|>"
SHAPE: Final = {
    "hidden_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "intermediate_size": 256,
    "max_position_embeddings": CONTEXT,
}


@dataclass(frozen=True)
class Settings:
    """What determines the weights, beside the text."""

    steps: int
    batch: int
    lr: float
    warm_up: int
    weight_decay: float
    seed: int


def pretraining_modules(folder: Path) -> list[str]:
    """Return the top-level packages and modules to learn from, sorted: the core library less the federated text."""
    modules = {path.stem for path in folder.glob("*.py")} | {
        path.parent.name for path in folder.glob("*/__init__.py")
    }
    kept = modules - HELD_OUT - NOT_CORE
    return sorted(name for name in kept if not name.startswith(("_sysconfigdata", "config-")))


def is_validation(module: str) -> bool:
    """Say whether a module is kept from training to score it: one in 40, by address."""
    return hashlib.sha256(module.encode()).digest()[0] % 40 == 0


def core_documents(folder: Path) -> Iterator[Document]:
    """Yield the pretraining text, one document a source file."""
    for module in pretraining_modules(folder):
        for path in sources(folder, module):
            text = path.read_text(encoding="utf-8")
            if text.strip():
                yield Document(path.relative_to(folder).as_posix(), module, text)


def code_only(text: str) -> str:
    r"""Return a module's source without comments and docstrings (any statement that is just a string).

    >>> code_only('def f(x):\n    "Say."\n    # why\n    return x  # because\n')
    'def f(x):\n    return x\n'
    """
    lines: list[str | None] = list(text.split("\n"))
    opens = True  # a statement begins here
    for token, after in pairwise(tokenize.generate_tokens(io.StringIO(text).readline)):
        row, column = token.start
        if token.type == tokenize.COMMENT:
            lines[row - 1] = token.line[:column].rstrip() or None
        elif token.type == tokenize.STRING and opens and after.type == tokenize.NEWLINE:
            lines[row - 1 : token.end[0]] = [None] * (token.end[0] - row + 1)
        layout = token.type in {tokenize.NL, tokenize.COMMENT, tokenize.INDENT, tokenize.DEDENT}
        opens = token.type == tokenize.NEWLINE or (opens and layout)
    return "\n".join(line for line in lines if line is not None)


def train_tokenizer(texts: Sequence[str]) -> Any:
    """Learn a byte-level BPE of `VOCAB` entries: 256 bytes, one end-of-text, the rest merges. Any text round-trips."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer


def stream_of(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """Return the texts as one run of token ids (N,), each text ended by end-of-text."""
    import torch

    end = tokenizer.token_to_id(END)
    ids = [token for text in tokenizer.encode_batch(list(texts)) for token in (*text.ids, end)]
    return torch.tensor(ids, dtype=torch.long)


def new_model(seed: int) -> Any:
    """Return the untrained model, its weights drawn at their own address."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(vocab_size=VOCAB, tie_word_embeddings=True, bos_token_id=0, eos_token_id=0, **SHAPE)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed_of(seed, "initial"))
        return LlamaForCausalLM(config)


def perplexity(model: Any, ids: torch.Tensor, length: int = CONTEXT) -> float:
    """Return exp(mean nats a token) over windows of `length` tokens without overlap, first tokens not scored."""
    import torch

    model.eval()
    windows = ids[: len(ids) // length * length].view(-1, length)
    total = 0.0
    with torch.no_grad():
        for rows in windows.split(64):
            total += model(input_ids=rows, labels=rows).loss.item() * len(rows)
    return math.exp(total / len(windows))


def train(model: Any, ids: torch.Tensor, settings: Settings) -> None:
    """Train in place: AdamW, linear warm-up times a cosine that ends at zero; windows start anywhere."""
    import torch

    model.train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.lr, betas=(0.9, 0.95), weight_decay=settings.weight_decay
    )
    generator = torch.Generator().manual_seed(seed_of(settings.seed, "windows"))
    offsets = torch.arange(CONTEXT)
    began, running = time.process_time(), 0.0
    for step in range(settings.steps):
        warm = min(1.0, (step + 1) / settings.warm_up)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * warm * 0.5 * (1.0 + math.cos(math.pi * step / settings.steps))
        starts = torch.randint(len(ids) - CONTEXT, (settings.batch,), generator=generator)
        rows = ids[starts[:, None] + offsets]
        loss = model(input_ids=rows, labels=rows).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        running = loss.item() if step == 0 else 0.98 * running + 0.02 * loss.item()
        if (step + 1) % 500 == 0:
            print(
                f"step {step + 1:6d}  ppl {math.exp(running):6.2f}  {time.process_time() - began:6.0f} CPU s",
                flush=True,
            )


def write_model(model: Any, tokenizer: Any, folder: Path) -> None:
    """Write what `from_pretrained` reads: half-precision weights, and a configuration that asks for float32."""
    import torch
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    model.half().save_pretrained(folder)
    # without this, transformers 5 would load and train in float16, which is slow and coarse on a CPU
    config = json.loads((folder / "config.json").read_text())
    config["dtype"] = str(torch.float32).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=END,
        bos_token=END,
        pad_token=END,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = (model_folder() / "chat_template.jinja").read_text(encoding="utf-8")
    fast.save_pretrained(folder)
    # the name that every transformers knows; version 5 writes that of its own base class
    described = json.loads((folder / "tokenizer_config.json").read_text())
    described["tokenizer_class"] = "PreTrainedTokenizerFast"
    (folder / "tokenizer_config.json").write_text(json.dumps(described, indent=2, sort_keys=True) + "\n")
    model.float()
    for path in folder.iterdir():
        if path.name not in {*MODEL_FILES, "MODEL_CARD.md"}:
            path.unlink()
        else:
            path.chmod(0o644)  # safetensors writes for its owner only; a wheel is read by others


def card(settings: Settings, facts: dict[str, Any], scores: dict[str, float], command: str) -> str:
    """Return the model card."""
    rows = "\n".join(f"| {name} | {value:.2f} |" for name, value in scores.items())
    return f"""# The built-in model of fedsim

A Llama-style causal language model of {facts["parameters"]:,} parameters ({SHAPE["num_hidden_layers"]} layers, width
{SHAPE["hidden_size"]}, {SHAPE["num_attention_heads"]} heads, feed-forward {SHAPE["intermediate_size"]}, context {CONTEXT}, tied embeddings) with a byte-level BPE of {VOCAB} entries.
It exists so that federated LoRA can be tried at once and offline; it is good for nothing else.

**Data.** The source of the core of the Python standard library, CPython {facts["python"]}, without comments and
docstrings: {facts["files"]} files, {facts["tokens"]:,} tokens (the tokenizer was trained on the whole {facts["bytes"]:,} bytes, prose included; their
SHA-256 is `{facts["corpus"][:16]}`). So the model knows code and hardly any English. Not in its data: the federated text, which is {", ".join(f"`{name}`" for name in sorted(HELD_OUT))}; and tests, `encodings`, `idlelib`, `tkinter`, `turtledemo`,
`lib2to3`, `distutils`, `ensurepip`. The modules {", ".join(f"`{name}`" for name in facts["validation"])} were kept to score it.

**Licence and credit.** The weights: Apache-2.0, as fedsim. They were learned from the Python standard library,
Copyright (c) 2001 Python Software Foundation; All Rights Reserved; used under the PSF License Agreement
(https://docs.python.org/3/license.html). No text of it is in this folder beyond the tokenizer's word pieces.

**Training.** AdamW (betas 0.9, 0.95; weight decay {settings.weight_decay}), learning rate {settings.lr} after {settings.warm_up} steps of linear warm-up, cosine to 0;
{settings.steps:,} steps of {settings.batch} x {CONTEXT} tokens ({facts["epochs"]:.1f} passes), gradient norm clipped at 1, seed {settings.seed}, float32, one thread:
{facts["cpu_s"]:.0f} CPU seconds. torch {facts["torch"]}, transformers {facts["transformers"]}. Repeat with

    {command}

Weights are stored in float16 and are meant to be loaded and trained in float32 (`config.json` says so).

**Token perplexity** of the stored weights, windows of {CONTEXT} tokens (guessing uniformly: {VOCAB}):

| text | perplexity |
|---|---|
{rows}
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Train, write and score."""
    parser = argparse.ArgumentParser(description="Pretrain the built-in model on Python's standard library.")
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent.parent / "fedsim" / "builtin" / "model"
    )
    parser.add_argument("--steps", type=int, default=12_000)
    parser.add_argument("--batch", type=int, default=8, help="windows of 128 tokens a step")
    parser.add_argument("--lr", type=float, default=8e-3)
    parser.add_argument("--warm-up", type=int, default=200)
    parser.add_argument("--weight-decay", type=float, default=0.05)
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args(argv))
    folder: Path = options.pop("out")
    settings = Settings(**options)

    import torch
    import transformers

    torch.set_num_threads(1)
    core = list(core_documents(standard_library()))
    learned = [d for d in core if not is_validation(d.group)]
    validation = [d for d in core if is_validation(d.group)]
    tokenizer = train_tokenizer([d.text for d in learned])
    ids = stream_of(tokenizer, [code_only(d.text) for d in learned])
    model = new_model(settings.seed)
    began = time.process_time()
    train(model, ids, settings)
    cpu_s = time.process_time() - began
    write_model(model, tokenizer, folder)

    stored = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    held = [d.text for d in validation]
    scores = {
        "core modules kept to score it, code only": perplexity(
            stored, stream_of(tokenizer, list(map(code_only, held)))
        ),
        "the same modules with comments and docstrings": perplexity(stored, stream_of(tokenizer, held)),
    }
    federated = documents()
    for group in sorted({d.group for d in federated}):
        texts = [d.text for d in federated if d.group == group]
        scores[f"federated: {group}"] = perplexity(stored, stream_of(tokenizer, texts))
    facts = {
        "parameters": sum(p.numel() for p in stored.parameters()),
        "python": platform.python_version(),
        "files": len(learned),
        "bytes": sum(len(d.text.encode()) for d in learned),
        "tokens": len(ids),
        "corpus": corpus_hash(learned),
        "validation": sorted({d.group for d in validation}),
        "epochs": settings.steps * settings.batch * CONTEXT / len(ids),
        "cpu_s": cpu_s,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
    flags = " ".join(f"--{name.replace('_', '-')} {value}" for name, value in vars(settings).items())
    text = card(settings, facts, scores, f"python scripts/pretrain_builtin.py {flags}")
    (folder / "MODEL_CARD.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
