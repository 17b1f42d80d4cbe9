"""Tiny models and texts, made once a session: nothing is downloaded."""

from __future__ import annotations

import gc
import os

import pytest
from hypothesis import settings

pytest.register_assert_rewrite("worlds", "oracles")
settings.register_profile("same", derandomize=True, database=None, max_examples=40)
settings.register_profile("many", derandomize=True, database=None)
settings.register_profile("new")
settings.load_profile(
    os.environ.get("FEDSIM_CASES", "same")
)  # `many`: as `make slow` has them; `new`: other cases at each run, to look for faults
if "PYTEST_XDIST_WORKER" in os.environ:  # one process a core: threads of torch would wait for each other
    os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_worker_niceness", "0")  # else its workers stand behind whatever else runs
os.fsync = (
    os.fstat
)  # looks at the descriptor and waits for no disk: no power fails in a test, and processes of their own wait
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # a missing fixture must not become a download

THEMES = {
    "sea": "the ship sails over a deep blue sea with salt wind and white waves near the harbour",
    "farm": "the farmer feeds brown cows and yellow hens beside green corn fields behind the barn",
    "law": "the court heard the judge and the jury about a contract claim before the lawyer spoke",
}


def sentences(theme, count, seed=0):
    """Lines of 6 to 12 words of one theme."""
    import numpy as np

    rng = np.random.default_rng([seed, len(theme), ord(theme[0])])
    return [" ".join(rng.choice(THEMES[theme].split(), rng.integers(6, 13))) for _ in range(count)]


def pytest_collection_finish():
    """What was collected lives to the end: the collector of garbage need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def text_folder(tmp_path_factory):
    """ptb-like files: 600 training lines in three themed runs, 60 valid, 60 test."""
    folder = tmp_path_factory.mktemp("text")
    for split, count in (("train", 200), ("valid", 20), ("test", 20)):
        lines = [line for seed, theme in enumerate(THEMES) for line in sentences(theme, count, seed)]
        (folder / f"tiny.{split}.txt").write_text("".join(f" {line} \n" for line in lines))
    return folder


def _tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    plain = Tokenizer(models.BPE())
    plain.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    plain.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False
    )
    plain.train_from_iterator(THEMES.values(), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=plain, bos_token="<s>", eos_token="</s>")


def _save(config, folder):
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def llama(tmp_path_factory):
    """A random Llama of 2 layers with tied embeddings, as a folder."""
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=320, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=True,
        bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    return _save(config, tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="session")
def gpt2(tmp_path_factory):
    """A random GPT-2 of 2 layers (Conv1D, dropout 0.1 in its configuration), as a folder."""
    from transformers import GPT2Config

    config = GPT2Config(
        vocab_size=320, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=1
    )
    return _save(config, tmp_path_factory.mktemp("gpt2"))


@pytest.fixture(scope="module")
def ray_here():
    """A Ray of the user's own in this process, of 6 CPUs: the executors of a module use it and leave it running."""
    from fedsim.executors import ray_session as session

    session.quiet_environment()
    import ray

    session.start(ray, session.Needs(6, 0.0, 0, 0))
    yield ray
    ray.shutdown()


@pytest.fixture(scope="session")
def themes():
    """The function that writes lines of a theme."""
    return sentences


@pytest.fixture(scope="session")
def tokenizer():
    """The tiny models' tokenizer."""
    return _tokenizer()


@pytest.fixture(scope="module")
def extensions(tmp_path_factory):
    """The folder of the files of docs/extending.md, which can be imported while a module is tested."""
    from worlds.extensions import installed

    with installed(tmp_path_factory.mktemp("extensions")) as folder:
        yield folder
