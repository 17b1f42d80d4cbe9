"""What a few tokens tell of a model: whether it looks ahead, how many tokens it reads, and what cannot be run at all."""

from __future__ import annotations

import pytest
import torch
from worlds import causal_models

from fedsim.errors import DataError
from fedsim.training import hub
from fedsim.training.loading import configuration, probing


class Config:
    """All that is asked of a configuration."""

    vocab_size = 50

    def get_text_config(self, decoder):
        assert decoder
        return self


class Tokens(torch.nn.Module):
    """Logits of a token: its own, and what is seen of the one `ahead` places later."""

    def __init__(self, ahead, share, dtype=torch.float32):
        super().__init__()
        self.words = torch.nn.Embedding(50, 50, dtype=dtype)
        self.ahead, self.share = ahead, share
        self.config = Config()

    def get_input_embeddings(self):
        return self.words

    def forward(self, input_ids, use_cache):
        logits = self.words(input_ids)
        later = torch.roll(logits, -self.ahead, 1)
        return type("Out", (), {"logits": logits + self.share * later})()


def made(*how):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Tokens(*how)


@pytest.mark.parametrize("ahead", [1, 2, 5])
@pytest.mark.parametrize(
    ("share", "dtype"), [(1.0, torch.float32), (1e-3, torch.float32), (0.1, torch.bfloat16)]
)
def test_a_model_that_sees_a_later_token_is_refused_however_little_it_sees(ahead, share, dtype):
    with pytest.raises(DataError, match="it looks ahead"):
        probing.check_causal(made(ahead, share, dtype), "it")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_a_model_that_looks_back_passes_and_so_does_rounding(dtype):
    probing.check_causal(made(0, 1.0, dtype), "it")
    probing.check_causal(made(1, 1e-8, dtype), "it")


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "electra", "xlm-roberta", "camembert", "xlnet", "roformer"]
)
def test_models_of_both_directions_are_refused(kind, tmp_path, tokenizer):
    with pytest.raises(DataError, match="it looks ahead"):
        hub.weights(causal_models.folder(tmp_path, kind, tokenizer))


@pytest.mark.parametrize(
    "kind", ["bert", "roberta", "electra", "xlm-roberta", "gpt_neox", "mamba", "rwkv", "mpt"]
)
def test_decoders_pass(kind, tmp_path, tokenizer):
    more = {"is_decoder": True} if kind in ("bert", "roberta", "electra", "xlm-roberta") else {}
    hub.weights(causal_models.folder(tmp_path, kind, tokenizer, **more))


def test_a_loaded_model_is_looked_at_in_half_precision_too(llama):
    hub.weights(llama, "bfloat16")


@pytest.mark.parametrize(
    ("kind", "changes", "most"),
    [
        ("roberta", {"pad_token_id": 1}, 62),  # places begin after the padding row
        ("roberta", {"pad_token_id": 0}, 63),
        ("xlm-roberta", {"pad_token_id": 1}, 62),
        ("mpt", {}, 64),
        ("opt", {}, 64),
        ("gpt2", {}, 64),
        ("llama", {}, 64),
        ("biogpt", {}, 64),
        ("bloom", {}, None),
        ("mamba", {}, None),
        ("xlnet", {}, None),
    ],
)
def test_the_tokens_that_a_model_reads_are_those_with_which_it_runs(kind, changes, most, tmp_path, tokenizer):
    changes = changes | ({"is_decoder": True} if "roberta" in kind else {})
    name = causal_models.folder(tmp_path, kind, tokenizer, **changes)
    for tokens in (1, 40) if most is None else (1, most):
        hub.check_sequence(name, tokens)
    if most is None:
        return hub.check_sequence(name, 200)
    with pytest.raises(DataError, match=f"reads {most} tokens at most") as error:
        hub.check_sequence(name, most + 1)
    assert f"set task.sequence to {most} or less" in str(error.value)
    if kind != "llama":  # its rotations have no end, only its configuration has
        model = hub.weights(name)
        ids = torch.full((1, most + 1), 5)
        with torch.no_grad():
            model(input_ids=ids[:, :-1], use_cache=False)
            if kind not in ("opt", "biogpt"):  # these two have rows to spare
                with pytest.raises((IndexError, RuntimeError, ValueError)):
                    model(input_ids=ids, use_cache=False)
    return None


def test_a_limit_that_no_setting_says_is_found_by_trying(tmp_path, tokenizer, monkeypatch):
    name = causal_models.folder(tmp_path, "mpt", tokenizer)
    monkeypatch.setattr(probing, "LIMITS", ())
    for sequence, most in ((10, 10), (64, 64), (65, 64), (1000, 64)):
        assert probing.readable(hub.skeleton(name), sequence) == most


def test_what_cannot_be_run_on_tokens_alone_is_refused(tmp_path, tokenizer):
    name = causal_models.folder(tmp_path, "xmod", tokenizer)
    with pytest.raises(DataError, match=r"cannot be run on tokens alone .*language") as error:
        hub.weights(name)
    assert "\n" not in str(error.value).partition("\n  fix: ")[0]


@pytest.mark.parametrize("kind", ["mamba", "mamba2", "rwkv", "gemma3", "xlnet", "mixtral", "gpt2"])
def test_sizes_are_known_of_every_family(kind, tmp_path, tokenizer):
    model = hub.skeleton(causal_models.folder(tmp_path, kind, tokenizer))
    assert (configuration.width(model), configuration.vocabulary(model), configuration.layers(model)) == (
        32,
        320,
        2,
    )


def test_of_a_model_of_text_and_pictures_the_part_for_text_is_meant(tmp_path, tokenizer):
    model = hub.skeleton(causal_models.folder(tmp_path, "gemma3", tokenizer))
    paths = [name for name, _ in configuration.of_text_parameters(model)]

    assert paths
    assert not any("vision" in path or "projector" in path for path in paths)
    assert any("vision" in name for name, _ in model.named_parameters())
