"""Tokens are those that the tokenizer's own call gives, whatever its files store; numbers beyond the model are refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast
from worlds.cases import tried
from worlds.text_files import written
from worlds.tokenizers_of_all_kinds import PLAIN, STORED, tokenizer

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import DataError
from fedsim.jobs import TaskContext
from fedsim.tasks._language import tokens as _tokens
from fedsim.tasks.language import Language
from fedsim.training import hub

MADE = {(kind, stored): tokenizer(kind, stored) for kind in PLAIN for stored in STORED}
LINES = st.lists(
    st.text(alphabet=st.one_of(st.sampled_from("the ship  sails<|im_end|>éÉ漢😀\t\n"), st.characters(codec="utf-8")), max_size=40),
    min_size=1, max_size=5,
)  # fmt: skip


def language(model, data, **fields):
    context = TaskContext(2, 0, LoraConfig(r=2), LocalConfig(lr=0.01, epochs=1, batch=4))
    return Language(model=str(model), data=str(data), **({"sequence": 16} | fields)).build(context)


def refused(model, data):
    """What is said of a model that is refused: one sentence and a fix."""
    hub.config.cache_clear()
    hub.skeleton.cache_clear()
    with pytest.raises(DataError) as error:
        language(model, data)
    head, _, fix = str(error.value).partition("\n  fix: ")
    assert fix
    assert "\n" not in head + fix
    return str(error.value)


@pytest.mark.parametrize("kind", PLAIN)
@pytest.mark.parametrize("stored", STORED)
@settings(max_examples=tried(25), deadline=None)
@given(lines=LINES)
def test_as_many_tokens_as_the_tokenizer_gives_and_the_same(kind, stored, lines):
    made = MADE[kind, stored]
    STORED[stored](made.backend_tokenizer)  # transformers' own calls reset what is stored
    row = _tokens.tokenise(made, lines, made.eos_token_id, 10_000)
    expected = [
        n for line in lines for n in [*made(line, add_special_tokens=False)["input_ids"], made.eos_token_id]
    ]
    assert row.tokens.tolist() == expected
    assert row.words.sum() == sum(len(line.split()) + 1 for line in lines)
    assert row.bytes.sum() == sum(len(line.encode()) + 1 for line in lines)


@pytest.mark.parametrize("stored", ["padding", "truncation, stride and padding"])
def test_what_a_folder_s_tokenizer_stores_changes_no_token(llama, text_folder, tmp_path, stored):
    plain = language(llama, text_folder)
    shutil.copytree(llama, tmp_path / "model")
    path = tmp_path / "model" / "tokenizer.json"
    backend = Tokenizer.from_file(str(path))
    STORED[stored](backend)
    backend.save(str(path))
    assert json.loads(path.read_text())["padding"]
    assert AutoTokenizer.from_pretrained(tmp_path / "model").backend_tokenizer.padding
    task = language(tmp_path / "model", text_folder)
    assert np.array_equal(task.test.tokens, plain.test.tokens)
    assert task.facts["train_tokens"] == plain.facts["train_tokens"]


def test_a_tokenizer_that_does_not_know_a_word_and_has_no_token_for_it_is_refused():
    made = Tokenizer(models.WordLevel({"a": 0, "</s>": 1}, unk_token="<unk>"))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, eos_token="</s>")
    with pytest.raises(DataError, match="the tokenizer cannot encode the text"):
        _tokens.tokenise(wrapped, ["b"], 1, 10)


# numbers beyond the model -----------------------------------------------------------------------


def folder_of(path, vocabulary, **special):
    """A Llama of one tiny layer with a vocabulary of this size, and a tokenizer to which special tokens are added."""
    import torch
    from transformers import LlamaForCausalLM

    words = {f"w{number}": number for number in range(vocabulary)}
    made = Tokenizer(models.WordLevel(words, unk_token="w0"))
    from tokenizers import pre_tokenizers

    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=made, **({"eos_token": "w1"} | special))
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=4, intermediate_size=4, num_hidden_layers=1, num_attention_heads=1,
        num_key_value_heads=1, max_position_embeddings=64, tie_word_embeddings=True,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(path)
    wrapped.save_pretrained(path)
    return path


@pytest.mark.parametrize("vocabulary", [353, 65_535, 65_536])
@pytest.mark.parametrize(
    ("special", "said"),
    [
        ({"eos_token": "<|im_end|>"}, "end-of-text token '<|im_end|>'"),
        ({"bos_token": "<|begin|>"}, "beginning-of-text token '<|begin|>'"),
    ],
)
def test_special_tokens_beyond_the_model_are_refused_before_they_are_narrowed(
    tmp_path, vocabulary, special, said
):
    folder = folder_of(tmp_path / "model", vocabulary, **special)
    data = written(tmp_path / "a.txt", "w1 w2 w3\n" * 300)
    text = refused(folder, data)
    assert said in text
    assert f"is number {vocabulary}, the model knows {vocabulary}" in text


@pytest.mark.parametrize("vocabulary", [353, 65_536])
def test_an_added_token_beyond_the_model_is_refused_where_the_text_has_it_and_only_there(
    tmp_path, vocabulary
):
    special = {"extra_special_tokens": ["<|user|>"], "pad_token": "<|pad|>"}
    folder = folder_of(tmp_path / "model", vocabulary, **special)
    made = AutoTokenizer.from_pretrained(folder)
    number = made.convert_tokens_to_ids("<|user|>")
    assert number >= vocabulary
    text = refused(folder, written(tmp_path / "a.txt", "w1 w2 <|user|> w3\n" * 300))
    assert f"the tokenizer gives token {number} ('<|user|>'), the model knows {vocabulary}" in text
    task = language(folder, written(tmp_path / "b.txt", "w1 w2 w3\n" * 300))
    assert int(task.windows.tokens.max()) == 3


def test_a_tokenizer_without_a_token_that_ends_a_text_is_refused_and_one_with_a_beginning_is_not(tmp_path):
    data = written(tmp_path / "a.txt", "w1 w2 w3\n" * 300)
    assert "the tokenizer has no end-of-text token" in refused(
        folder_of(tmp_path / "none", 353, eos_token=None), data
    )
    task = language(folder_of(tmp_path / "bos", 353, eos_token=None, bos_token="w5"), data)
    assert task.test.tokens[0][0] == 5
    assert (task.test.tokens[:, 1:] == 5).sum() >= 30  # it ends the lines, too


def test_an_unknown_token_that_is_none_of_the_tokens_is_refused(tmp_path):
    """It would be looked up in place of itself, for ever."""
    folder = folder_of(tmp_path / "model", 353)
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "unk_token": ""}))
    text = refused(folder, written(tmp_path / "a.txt", "w1 w2 w3\n" * 300))
    assert "the tokenizer's unknown token is not one of its tokens (got '')" in text


# no tokenizer -----------------------------------------------------------------------------------


@pytest.mark.parametrize("left", [(), ("tokenizer_config.json",)])
def test_a_model_without_a_tokenizer_says_so_and_nothing_else(llama, text_folder, tmp_path, left):
    shutil.copytree(llama, tmp_path / "model")
    for path in (tmp_path / "model").glob("*token*"):
        if path.name not in left:
            path.unlink()
    text = refused(tmp_path / "model", text_folder)
    assert "tokenizer" in text
    assert "too many for the data" not in text
    if not left:
        assert "the folder holds no tokenizer" in text
        assert "copy tokenizer.json there" in text


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[1]", b'{"version": "1.0", "model": 3}', b"\xff\xfe", b"\0" * 100]
)
def test_a_tokenizer_file_that_is_none_is_one_sentence(llama, text_folder, tmp_path, content):
    shutil.copytree(llama, tmp_path / "model")
    Path(tmp_path / "model" / "tokenizer.json").write_bytes(content)
    assert "tokenizer" in refused(tmp_path / "model", text_folder)
