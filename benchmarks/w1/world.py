"""The workload, defined once: a random GPT-2 with a word tokenizer, text, and who trains on what.

A world is a folder: `model/` (a local Hugging Face model, random weights), `text/` (generated),
`schedule.npz` (what every contestant replays: fedsim's own cohorts and batches) and `world.json`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from tokenizers import Tokenizer

    from fedsim.config.experiment import Experiment

ROTARY = {
    "llama": "LlamaConfig",
    "mistral": "MistralConfig",
    "qwen2": "Qwen2Config",
    "qwen3": "Qwen3Config",
    "smollm3": "SmolLM3Config",
    "gemma3": "Gemma3TextConfig",
}
"""Families beside GPT-2, by their configurations in transformers."""
TARGETS = {"gpt2": ("c_attn", "c_proj")} | dict.fromkeys(
    ROTARY, ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj")
)
"""What has an adapter: the maps to queries, keys and values, and those out of attention and MLP."""
WINDOWS = 44


@dataclass(frozen=True)
class World:
    """A workload; the defaults are W1.

    Attributes:
        family: `gpt2`, or one of `ROTARY`.
        width, layers, heads, vocab, positions: of the model.
        kv_heads, inner: of all but GPT-2: heads of keys and values, width of the MLP.
        window: of Mistral and of Gemma 3's local layers.
        batch, sequence, steps: of a visit: AdamW steps of `batch` windows that predict `sequence` tokens.
        r, alpha: of the adapters on `TARGETS`, dropout 0.
        clients, cohort: how many there are, and how many train in a round.
    """

    family: str = "gpt2"
    width: int = 128
    layers: int = 4
    heads: int = 4
    vocab: int = 1024
    positions: int = 128
    kv_heads: int = 0
    inner: int = 0
    window: int = 0
    batch: int = 8
    sequence: int = 64
    steps: int = 10
    r: int = 8
    alpha: int = 16
    clients: int = 100
    cohort: int = 10

    def experiment(self, folder: Path, **blocks: Any) -> Experiment:
        """Return the experiment that runs this world in fedsim.

        Args:
            folder: where `made` put it.
            blocks: further blocks of the configuration (`budget`, `runtime`, `numerics`, ...).
        """
        from fedsim.config.experiment import Experiment

        plain: dict[str, Any] = {
            "name": "world",
            "population": {"preset": "homogeneous", "clients": self.clients},
            "task": {
                "kind": "language",
                "model": str(folder / "model"),
                "data": str(folder / "text"),
                "sequence": self.sequence,
            },
            "lora": {"r": self.r, "alpha": self.alpha, "targets": list(TARGETS[self.family])},
            "local": {"optimizer": "adamw", "lr": 1.0e-3, "steps": self.steps, "batch": self.batch},
            "protocol": {"kind": "synchronous", "cohort": self.cohort},
            "budget": {"commits": 6},
            "evaluate": {"every_commits": 1_000_000, "windows": 1},
        }
        return Experiment.model_validate(plain | blocks)


PADDING = None
"""Token of the rotary families' padding. torch gives one an embedding of zeros: the first token of a text would stay zero in every
layer, and each norm multiplies the gradient of zero by hundreds, which 12 layers make infinite."""


def made(world: World, cache: Path, rounds: int = 6, windows: int = WINDOWS) -> Path:
    """Return the folder of a world, written if it is not there yet.

    Args:
        world: the workload.
        cache: where worlds are kept.
        rounds: how many the schedule holds.
        windows: of text for every client, before a tenth is held out.
    """
    facts = {**asdict(world), "targets": TARGETS[world.family], "rounds": rounds, "windows": windows}
    facts |= {"padding": PADDING, "tokenizer": "bytes" if world.family == "qwen2" else "words"}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:12]
    folder = cache / f"world-{key}"
    if not (folder / "world.json").is_file():
        shutil.rmtree(folder, ignore_errors=True)
        _write_model(world, folder / "model")
        _write_text(world, folder / "text", windows)
        _write_schedule(world, folder, rounds)
        (folder / "world.json").write_text(json.dumps(facts), encoding="utf-8")
    return folder


def _write_model(world: World, folder: Path) -> None:
    import torch
    from transformers import PreTrainedTokenizerFast, utils

    utils.logging.disable_progress_bar()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        (_gpt2 if world.family == "gpt2" else _rotary)(world).save_pretrained(folder)
    plain = _bytes_and_pairs(world) if world.family == "qwen2" else _words(world)
    fast = PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<eos>", eos_token="<eos>")  # noqa: S106
    fast.save_pretrained(folder)


def _words(world: World) -> Tokenizer:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<eos>": 0} | {f"w{i}": i for i in range(1, world.vocab)}
    plain = Tokenizer(models.WordLevel(words, unk_token="w1"))  # noqa: S106
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return plain


def _bytes_and_pairs(world: World) -> Tokenizer:
    """Return the one kind that transformers makes of any folder of Qwen2's: bytes, of which pairs became one token."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=world.vocab, special_tokens=["<eos>"], initial_alphabet=alphabet, show_progress=False
    )
    plain.train_from_iterator((f"w{i} w{i}" for i in range(1, world.vocab)), trainer)
    return plain


def _gpt2(world: World) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=world.vocab,
        n_positions=max(world.positions, world.sequence),
        n_embd=world.width,
        n_layer=world.layers,
        n_head=world.heads,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPT2LMHeadModel(config)


def _rotary(world: World) -> Any:
    import transformers

    family, head_dim = world.family, world.width // world.heads
    own: dict[str, Any] = {
        "mistral": {"sliding_window": world.window},
        "qwen3": {"head_dim": head_dim},
        "gemma3": {"head_dim": head_dim, "query_pre_attn_scalar": head_dim, "sliding_window": world.window},
    }
    config = getattr(transformers, ROTARY[family])(
        vocab_size=world.vocab,
        hidden_size=world.width,
        intermediate_size=world.inner,
        num_hidden_layers=world.layers,
        num_attention_heads=world.heads,
        num_key_value_heads=world.kv_heads,
        max_position_embeddings=max(world.positions, world.sequence),
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=PADDING,
        **own.get(family, {}),
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def _write_text(world: World, folder: Path, windows: int) -> None:
    """Write lines of `sequence` tokens (their end included), words by Zipf's law with a little grammar."""
    rng = np.random.default_rng(0)
    folder.mkdir(parents=True)
    shares = 1.0 / np.arange(1, world.vocab)
    follower = rng.permutation(world.vocab - 1)
    for split, count in (("train", world.clients * windows), ("test", 64)):
        words = rng.choice(world.vocab - 1, size=(count, world.sequence - 1), p=shares / shares.sum())
        follows = rng.random(words.shape) < 0.5
        for at in range(1, words.shape[1]):
            words[:, at] = np.where(follows[:, at], follower[words[:, at - 1]], words[:, at])
        lines = (" ".join(f"w{word + 1}" for word in line) + "\n" for line in words)
        (folder / f"{split}.txt").write_text("".join(lines), encoding="utf-8")


def _write_schedule(world: World, folder: Path, rounds: int) -> None:
    """Ask fedsim's clock who trains in which round, and its loaders on what; store the answer."""
    from fedsim.jobs import Job
    from fedsim.runs import simulation
    from fedsim.training import local

    experiment = world.experiment(folder, budget={"commits": rounds})
    plan = simulation.prepared(experiment)
    visits = simulation.simulate(plan, timeline_only=True).visits
    visits = visits[visits.outcome == "landed"].sort_values(["round", "client", "visit"])
    task: Any = plan.task
    tokens, weights = [], []
    for client, visit in zip(visits.client.tolist(), visits.visit.tolist(), strict=True):
        job = Job(client, visit, None, experiment.local, experiment.seed)
        windows = task.windows.tokens[task.splits.training[job.client]]
        tokens.append(windows[np.array(list(local.batches(len(windows), job)))])
        weights.append(len(windows))  # FedAvg counts the whole shard
    shape = (rounds, world.cohort)
    np.savez(
        folder / "schedule.npz",
        tokens=np.array(tokens).reshape(*shape, world.steps, world.batch, world.sequence + 1),
        weights=np.array(weights, dtype=np.float64).reshape(shape),
        clients=visits.client.to_numpy().reshape(shape),
        initial=task.initial(),
        names=np.array([_peft_name(name) for name in task.layout.slices]),
    )


def _peft_name(name: str) -> str:
    return f"base_model.model.{name}.default.weight"
