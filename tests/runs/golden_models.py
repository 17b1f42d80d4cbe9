"""Small runs of real models, to compare two checkouts on one machine.

    PYTHONPATH=/path/to/a python tests/runs/golden_models.py a.json
    PYTHONPATH=/path/to/b python tests/runs/golden_models.py b.json
    python tests/runs/golden_models.py --compare a.json b.json

A file holds the SHA-256 of every column of every table and of every file of the adapter. What real models compute has other
last bits on another processor or with another torch, so these files are made where they are compared and never kept.
Run names after the file run those alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path

from digests import columns, differences, digest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")

TEXT = {
    "task": {
        "kind": "language",
        "model": "builtin",
        "data": "builtin",
        "sequence": 32,
        "partition": {"kind": "dirichlet", "alpha": 0.5},
        "charge_as": {"preset": "gemma-3-270m", "r": 8, "targets": "attention", "tokens_per_visit": 20000},
    },
    "local": {"optimizer": "adamw", "lr": 2.0e-3, "steps": 3, "batch": 4},
    "evaluate": {"every_commits": 2, "windows": 40},
}
PICTURES = {
    "task": {
        "kind": "images",
        "model": "builtin",
        "data": "builtin",
        "partition": {"kind": "pathological", "classes": 1},
        "samples": 20,
        "sampling_steps": 4,
    },
    "local": {"optimizer": "adamw", "lr": 2.0e-3, "steps": 2, "batch": 8},
    "lora": {"r": 4, "alpha": 4, "targets": ["attention", "resnets"]},
    "evaluate": {"every_commits": 2, "splits": ["test", "samples"], "windows": 20},
}
OWN_COST = {key: value for key, value in TEXT["task"].items() if key != "charge_as"}
ROUNDS = {"protocol": {"kind": "synchronous", "cohort": 3}}
BUFFER = {"protocol": {"kind": "buffered", "concurrency": 4, "buffer": 2}}
GPT2 = {"task": {**TEXT["task"], "model": "GPT2"}}
"""`GPT2` stands for the folder of a small random one, made from a seed when the runs begin."""
RUNS = {
    "fused": {
        **TEXT, **ROUNDS, "numerics": {"training": "fused"},
        "personal": {"kind": "fine-tune", "epochs": 1, "clients": 2},
    },
    "sequential": {
        **TEXT, **BUFFER, "numerics": {"training": "sequential"}, "lora": {"r": 4, "dropout": 0.1},
        "local": {**TEXT["local"], "clip_norm": 1.0, "schedule": "cosine"},
    },
    "gpt2-fused": {**TEXT, **GPT2, **BUFFER, "numerics": {"training": "fused", "client_batch": 3}},
    "gpt2-swapped": {
        **TEXT, **GPT2, **ROUNDS, "numerics": {"training": "swapped"}, "lora": {"r": 4, "dropout": 0.1},
        "wire": {"dtype": "int8", "error_feedback": True},
    },
    "images": {**PICTURES, **ROUNDS, "personal": {"kind": "fine-tune", "epochs": 1, "clients": 1}},
    "images-sequential": {**PICTURES, **BUFFER, "numerics": {"training": "sequential"}},
    "moved-base": {
        **TEXT, **BUFFER, "aggregator": {"kind": "flora"}, "personal": {"kind": "feddpa", "train": "after", "epochs": 1, "clients": 2},
    },
    "unequal-ranks": {
        **TEXT, **ROUNDS, "aggregator": {"kind": "flexlora"},
        "lora": {"r": 8, "rank_by": "memory", "ranks": [2, 8]},
        "protocol": {"kind": "timely", "cohort": 3, "k": 2, "partial": "rank"},
    },
    "private-layers": {**TEXT, **ROUNDS, "personal": {"kind": "fedper", "layers": 1, "clients": 3}},
    "ditto": {**TEXT, **BUFFER, "personal": {"kind": "ditto", "lam": 0.5, "clients": 3}},
    "whole-model": {**TEXT, **ROUNDS, "task": OWN_COST, "lora": {"full": True}, "server_optimizer": {"kind": "adam", "lr": 1.0e-3}},
}  # fmt: skip


def small_gpt2(folder):
    """Write a random GPT-2 of 2 layers with the tokenizer of the embedded model; returns its folder."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    import fedsim

    tokenizer = AutoTokenizer.from_pretrained(Path(fedsim.__file__).parent / "builtin" / "model")
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=32, n_layer=2, n_head=4, n_positions=64,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    torch.manual_seed(0)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def experiment(name, gpt2):
    """Return the experiment of a name; `gpt2` is the folder of the small model."""
    from fedsim import Experiment

    blocks = {
        "name": name,
        "seed": 5,
        "population": {"preset": "mixed_edge_2025", "clients": 40},
        "lora": {"r": 4, "alpha": 8},
        "budget": {"commits": 2},
        "runtime": {"executor": "inline"},
        **RUNS[name],
    }
    if blocks["task"]["model"] == "GPT2":
        blocks["task"] = {**blocks["task"], "model": gpt2}
    return Experiment.model_validate(blocks)


def digests_of(name, gpt2, folder):
    """Return `table.column` or file -> SHA-256 of a run."""
    from fedsim import simulate

    found = columns(simulate(experiment(name, gpt2), out=folder))
    files = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.glob("adapter/**/*.safetensors"))
    }
    return {
        **{key: digest(values) for key, values in found.items()},
        **{key: tensors(path) for key, path in files.items()},
    }


def tensors(path):
    """Return the SHA-256 of a file's tensors in the order of their names; its header's order may be any."""
    from safetensors.numpy import load_file

    found = hashlib.sha256()
    for name, array in sorted(load_file(path).items()):
        found.update(f"{name} {array.dtype.str} {array.shape}\n".encode() + array.tobytes())
    return found.hexdigest()


def compared(one, other):
    """Return one line a column or file that two files of digests do not agree in."""
    wanted, got = (json.loads(Path(path).read_text(encoding="utf-8")) for path in (one, other))
    lines = [f"{name}: is in one file only" for name in sorted(wanted.keys() ^ got.keys())]
    for name in sorted(wanted.keys() & got.keys()):
        lines += [f"{name}: {line}" for line in differences(wanted[name], got[name])]
    return lines


def main(words):
    """Run and write, or compare; returns the exit status."""
    if words[:1] == ["--compare"] and len(words) == 3:
        lines = compared(words[1], words[2])
        print("\n".join(lines) or "equal to the bit")
        return 1 if lines else 0
    if not words or words[0].startswith("-"):
        print(__doc__)
        return 2
    import fedsim

    print(f"{Path(fedsim.__file__).parent} runs")
    found = {}
    with tempfile.TemporaryDirectory() as scratch:
        gpt2 = small_gpt2(Path(scratch) / "gpt2")
        for name in words[1:] or RUNS:
            start_s = time.perf_counter()
            found[name] = digests_of(name, gpt2, Path(scratch) / name)
            print(f"{name}: {len(found[name])} digests in {time.perf_counter() - start_s:.1f} s", flush=True)
    Path(words[0]).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
