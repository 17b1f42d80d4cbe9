"""The built-in default: a small pretrained model that is shipped, and the text of this Python that it never saw."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import io
import math
import shutil
import socket
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedsim import builtin
from fedsim.builtin import Document, corpus_hash, documents, model_folder, without_repeats
from fedsim.errors import DataError

SCRIPT = Path(__file__).parents[3] / "scripts" / "pretrain_builtin.py"


def load_script():
    spec = importlib.util.spec_from_file_location("pretrain_builtin", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def script():
    return load_script()


@pytest.fixture(scope="module")
def corpus():
    return documents()


@pytest.fixture(scope="module")
def model():
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    return AutoModelForCausalLM.from_pretrained(model_folder())


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_folder())


@pytest.fixture(scope="module")
def unseen(tokenizer, corpus):
    import torch

    def ids(group, tokens=8192):
        text = "\n".join(d.text for d in corpus if d.group == group)
        return torch.tensor(tokenizer(text)["input_ids"][:tokens])

    return ids


# the model


def test_the_shipped_folder_is_complete_and_small_and_credits_its_source():
    folder = model_folder()
    names = {path.name for path in folder.iterdir()}
    assert names == {*builtin.MODEL_FILES, "MODEL_CARD.md"}
    assert sum(path.stat().st_size for path in folder.iterdir()) <= 1_200_000
    assert "Python Software Foundation" in (folder / "MODEL_CARD.md").read_text()


def test_model_and_tokenizer_load_without_a_network_and_in_float32(monkeypatch):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    def refuse(*_args, **_kwargs):
        raise AssertionError("the built-in model reached for the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    model = AutoModelForCausalLM.from_pretrained(model_folder())
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert len(tokenizer) == model.config.vocab_size == 512
    assert tokenizer.eos_token_id == model.config.eos_token_id == 0


def test_the_model_has_the_parameters_that_its_shape_says(model):
    width, ffn, layers, vocab = 96, 256, 3, 512
    per_layer = 4 * width * width + 3 * width * ffn + 2 * width  # q k v o; gate up down; two norms
    assert sum(p.numel() for p in model.parameters()) == vocab * width + layers * per_layer + width == 381_600


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_from_the_tokenizer_as_it_went_in(tokenizer, text):
    ids = tokenizer(text)["input_ids"]
    assert tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
    assert len(ids) <= len(text.encode())
    assert all(0 <= token < 512 for token in ids)


def test_the_tokenizer_adds_nothing_and_packs_source_text_in_more_than_two_bytes_a_token(tokenizer, corpus):
    text = next(d.text for d in corpus if d.name == "asyncio/events.py")
    ids = tokenizer(text)["input_ids"]
    assert 0 not in ids
    assert 2.0 < len(text.encode()) / len(ids) < 3.0


@pytest.mark.parametrize("group", ["asyncio", "unittest", "topics/statements"])
def test_the_model_predicts_text_it_never_saw_far_better_than_token_frequencies_do(
    script, model, unseen, group
):
    """Guessing uniformly has perplexity 512; the loose bound is half of what the text's own frequencies give."""
    ids = unseen(group)
    share = ids.bincount().double() / len(ids)
    unigram = math.exp(-(share[share > 0] * share[share > 0].log()).sum())
    assert 100 < unigram < 512
    assert script.perplexity(model, ids) < unigram / 2


def test_an_untrained_model_of_the_same_shape_is_no_better_than_chance(script, unseen):
    assert 400 < script.perplexity(script.new_model(seed=1), unseen("asyncio")) < 700


def test_an_incomplete_installation_is_named_with_what_is_missing(monkeypatch, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    monkeypatch.setattr(builtin, "files", lambda _name: tmp_path)
    with pytest.raises(
        DataError, match=r"no model\.safetensors, tokenizer\.json, tokenizer_config\.json"
    ) as error:
        model_folder()
    assert "fix: " in str(error.value)


# the federated text


def test_documents_are_reference_topics_and_the_held_out_packages(corpus):
    groups = {d.group for d in corpus}
    topics = {"topics/statements", "topics/expressions", "topics/data-model", "topics/text-and-containers"}
    assert groups - {"topics/other"} == topics | {"pydecimal", "asyncio", "email", "unittest", "xml"}
    assert {"topics/assert", "topics/types", "asyncio/events.py", "xml/sax/handler.py", "_pydecimal.py"} <= {
        d.name for d in corpus
    }
    assert sum(d.name.startswith("topics/") for d in corpus) >= 70


def test_each_document_has_text_and_a_name_of_its_own_and_no_label_is_a_crumb(corpus):
    assert all(d.text.strip() for d in corpus)
    assert len({d.name for d in corpus}) == len(corpus)
    size = {
        group: sum(len(d.text) for d in corpus if d.group == group) for group in {d.group for d in corpus}
    }
    assert 1_500_000 < sum(size.values()) < 4_000_000
    assert min(size.values()) > 15_000


def test_documents_come_in_the_same_order_and_with_the_same_text_each_time(corpus):
    assert documents() == corpus
    assert corpus_hash(documents()) == corpus_hash(corpus)


def test_no_tests_of_the_library_are_among_the_documents(corpus):
    assert not [d.name for d in corpus if {"test", "tests"} & set(d.name.split("/"))]


def test_no_paragraph_of_the_reference_is_in_two_topics_and_none_is_lost(corpus):
    from pydoc_data.topics import topics

    def paragraphs(text):
        return {key for p in text.split("\n\n") if (key := " ".join(p.split()))}

    parts = [paragraphs(d.text) for d in corpus if d.name.startswith("topics/")]
    assert sum(map(len, parts)) == len(set().union(*parts))
    assert set().union(*parts) == set().union(*map(paragraphs, topics.values()))
    assert sum(len(paragraphs(t)) for t in topics.values()) > 1.1 * sum(
        map(len, parts)
    )  # there was much to remove


@given(
    st.dictionaries(
        st.text("abc", min_size=1), st.lists(st.sampled_from("vwxyz"), min_size=1).map("\n\n".join)
    )
)
def test_a_repeated_paragraph_stays_in_the_shortest_text_that_has_it(texts):
    kept = without_repeats(texts)
    assert list(kept) == list(texts)
    for paragraph in "vwxyz":
        having = [name for name in texts if paragraph in texts[name]]
        owners = [name for name in kept if paragraph in kept[name]]
        assert owners == ([min(having, key=lambda name: (len(texts[name]), name))] if having else [])


def test_the_corpus_hash_is_of_names_groups_and_texts_and_knows_where_each_ends():
    one = Document("a", "b", "c")
    framed = b"".join((1).to_bytes(8, "little") + part for part in (b"a", b"b", b"c"))
    assert corpus_hash([one]) == hashlib.sha256(framed).hexdigest()
    others = [
        Document("ab", "", "c"),
        Document("a", "bc", ""),
        Document("a", "b", "d"),
        Document("c", "b", "a"),
    ]
    assert len({corpus_hash([d]) for d in [one, *others]} | {corpus_hash([one, one]), corpus_hash([])}) == 7


# a Python without sources


def test_an_empty_library_is_an_error_that_names_another_way(monkeypatch, tmp_path):
    monkeypatch.setattr(builtin, "standard_library", lambda: tmp_path)
    with pytest.raises(DataError) as error:
        documents()
    assert str(tmp_path) in str(error.value)
    assert "_pydecimal, asyncio, email, unittest, xml" in str(error.value)
    assert "task.data: FOLDER" in str(error.value)


def test_a_library_of_byte_code_only_has_no_text(monkeypatch, tmp_path):
    for package in builtin.PACKAGES:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.pyc").write_bytes(b"\xa7\r\r\n")
    monkeypatch.setattr(builtin, "standard_library", lambda: tmp_path)
    with pytest.raises(DataError, match="without sources"):
        documents()


def test_one_missing_package_is_enough_and_is_the_only_one_named(monkeypatch, tmp_path):
    for package in set(builtin.PACKAGES) - {"email"}:
        (tmp_path / f"{package}.py").write_text("x = 1\n")
    monkeypatch.setattr(builtin, "standard_library", lambda: tmp_path)
    with pytest.raises(DataError, match="nothing of email'"):
        documents()


def test_a_minimal_python_without_the_reference_topics_is_told_so(monkeypatch):
    def absent(name):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(builtin, "import_module", absent)
    with pytest.raises(DataError, match="nothing of pydoc_data'"):
        documents()


# pretraining


def test_nothing_that_is_federated_was_pretrained_on(script, corpus):
    folder = builtin.standard_library()
    assert set(script.pretraining_modules(folder)).isdisjoint({*builtin.PACKAGES, "pydoc_data"})
    learned = {d.name for d in script.core_documents(folder)}
    assert len(learned) > 200
    assert learned.isdisjoint(d.name for d in corpus)


def test_hardly_a_paragraph_of_the_federated_text_was_learned_elsewhere_either(script, corpus):
    def paragraphs(text):
        return [key for p in text.split("\n\n") if len(key := " ".join(p.split())) >= 60]

    learned = {p for d in script.core_documents(builtin.standard_library()) for p in paragraphs(d.text)}
    federated = [p for d in corpus for p in paragraphs(d.text)]
    assert len(learned) > 5000
    assert sum(len(p) for p in federated if p in learned) < 0.002 * sum(map(len, federated))


def test_pretraining_reads_the_core_and_leaves_out_what_is_not(script, tmp_path):
    kept = ["_strptime.py", "json/tool.py", "os.py"]
    left = [
        "json/tests/a.py",
        "asyncio/events.py",
        "_pydecimal.py",
        "pydoc_data/topics.py",
        "test/a.py",
        "encodings/a.py",
    ]
    for name in [*kept, *left, "site-packages/x.py"]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x = 1\n")
        if path.parent != tmp_path:
            (path.parent / "__init__.py").touch()
    assert [d.name for d in script.core_documents(tmp_path)] == kept


@pytest.mark.parametrize("module", ["heapq", "textwrap", "functools", "shlex", "random"])
def test_code_without_prose_is_the_same_program(script, module):
    """The syntax trees are equal once docstrings are dropped from the original; no comment token remains."""

    def tree(text):
        parsed = ast.parse(text)
        for node in ast.walk(parsed):
            if isinstance(getattr(node, "body", None), list):
                node.body = [statement for statement in node.body if not is_text(statement)]
        return ast.dump(parsed)

    def is_text(node):
        return (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        )

    text = (builtin.standard_library() / f"{module}.py").read_text(encoding="utf-8")
    code = script.code_only(text)
    assert tree(code) == tree(text)
    assert 0.2 * len(text) < len(code) < 0.9 * len(text)
    tokens = list(tokenize.generate_tokens(io.StringIO(code).readline))
    assert tokenize.COMMENT in {token.type for token in tokenize.generate_tokens(io.StringIO(text).readline)}
    assert tokenize.COMMENT not in {token.type for token in tokens}


def test_pretraining_learns_writes_a_loadable_model_and_repeats_to_the_bit(
    script, monkeypatch, tmp_path, capsys
):
    """The whole script, on a library of three small modules for 30 steps."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    library = tmp_path / "lib"
    library.mkdir()
    for name in ("textwrap", "shlex", "queue"):  # queue is one of those kept to score
        shutil.copy(builtin.standard_library() / f"{name}.py", library)
    monkeypatch.setattr(script, "standard_library", lambda: library)
    text = (library / "shlex.py").read_text()
    monkeypatch.setattr(script, "documents", lambda: [Document("other", "some-group", text)])
    for out in ("one", "two"):
        script.main(["--steps", "30", "--batch", "2", "--warm-up", "5", "--out", str(tmp_path / out)])
    assert "some-group" in capsys.readouterr().out
    first, second = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("one", "two"))
    assert first == second

    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "one")
    assert loaded.dtype == torch.float32
    ids = torch.tensor(AutoTokenizer.from_pretrained(tmp_path / "one")(text)["input_ids"])
    assert script.perplexity(loaded, ids) < 0.6 * script.perplexity(script.new_model(seed=0), ids)
    assert {p.name for p in (tmp_path / "one").iterdir()} == {*builtin.MODEL_FILES, "MODEL_CARD.md"}


def test_importing_the_module_loads_neither_torch_nor_transformers():
    code = "import sys, fedsim.builtin; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'tokenizers')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
