"""The language task: reading text, tokens and words, windows, shards, training, metrics."""

from __future__ import annotations

import csv
import json
import math
import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds.client_batches import agree

from fedsim.component import build
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import DataError, ExperimentError
from fedsim.jobs import Job, Probe, TaskContext
from fedsim.metrics.sums import add_sums
from fedsim.tasks import _tables
from fedsim.tasks._language import text as _text
from fedsim.tasks._language import tokens as _tokens
from fedsim.tasks._language.text import Source
from fedsim.tasks.language import Language
from fedsim.training import hub

LOCAL = LocalConfig(lr=0.01, epochs=1, batch=4)
R4 = LoraConfig(r=4, alpha=8.0)


def language(model, data, clients=6, lora=R4, seed=0, **fields):
    fields = {"sequence": 16} | fields
    return Language(model=model, data=str(data), **fields).build(TaskContext(clients, seed, lora, LOCAL))


@pytest.fixture(scope="module")
def task(llama, text_folder):
    return language(llama, text_folder)


def total(task, vector, split="test", client=None):
    return add_sums([task.score(vector, probe) for probe in task.probes(split, client=client)])


def one_sentence(error):
    head, _, fix = str(error.value).partition("\n  fix: ")
    assert fix
    assert "\n" not in head
    return str(error.value)


# reading ----------------------------------------------------------------------------------------


def test_a_folder_is_split_by_the_names_of_its_files(text_folder):
    splits = _text.read(Source(str(text_folder))).splits
    assert {name: len(texts) for name, texts in splits.items()} == {"train": 600, "valid": 60, "test": 60}
    assert not splits["train"].texts[0].startswith(" ")


def test_a_folder_laid_out_as_the_hub_s_parquet_is_split_by_its_folders(tmp_path):
    for split in ("train", "validation", "test"):
        (tmp_path / "penn_treebank" / split).mkdir(parents=True)
        table = pa.table({"sentence": [f"a {split} line", "another"]})
        pq.write_table(table, tmp_path / "penn_treebank" / split / "0000.parquet")
    splits = _text.read(Source(str(tmp_path))).splits
    assert {name: texts.texts[0] for name, texts in splits.items()} == {
        "train": "a train line", "valid": "a validation line", "test": "a test line",
    }  # fmt: skip
    through_datasets = _tables.from_hub(str(tmp_path), None, None)
    assert {name: columns["sentence"] for name, columns in through_datasets.items()} == {
        name: texts.texts for name, texts in splits.items()
    }


def test_hub_names_are_loaded_with_config_and_the_parquet_branch_where_main_holds_a_script():
    asked = []

    def load(name, config, revision):
        asked.append((name, config, revision))
        return pretend

    class Columns(dict):
        column_names = ("sentence",)

    pretend = {"train": Columns(sentence=["a"]), "validation": Columns(sentence=["b"]), "extra": Columns()}
    found = _tables.from_hub("ptb-text-only/ptb_text_only", None, None, load)
    assert found == {"train": {"sentence": ["a"]}, "valid": {"sentence": ["b"]}}
    _tables.from_hub("Salesforce/wikitext", "wikitext-2-raw-v1", None, load)
    assert asked == [
        ("ptb-text-only/ptb_text_only", None, "refs/convert/parquet"),
        ("Salesforce/wikitext", "wikitext-2-raw-v1", None),
    ]


def test_a_single_file_holds_out_its_last_tenth(tmp_path):
    path = tmp_path / "book.txt"
    path.write_text("".join(f"line {k}\n" for k in range(100)))
    lines = _text.read(Source(str(path))).splits
    assert lines["train"].texts == [f"line {k}" for k in range(90)]
    assert lines["test"].texts == [f"line {k}" for k in range(90, 100)]
    whole = _text.read(Source(str(path), newline="keep")).splits
    assert whole["train"].texts[0] + whole["test"].texts[0] == path.read_text()
    assert whole["test"].texts[0].count("\n") == 10


def write_table(path, rows):
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(columns))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_tables_of_every_format_give_the_same_texts_owners_and_labels(tmp_path, suffix):
    rows = [{"who": f"p{k % 3}", "kind": "ab"[k % 2], "text": f'say "{k}",\nthen é'} for k in range(60)]
    write_table(tmp_path / f"t{suffix}", rows)
    source = Source(str(tmp_path / f"t{suffix}"), client_column="who", label_column="kind")
    splits = _text.read(source).splits
    assert len(splits["train"]) == 54
    assert [splits["test"].owners.count(p) for p in ("p0", "p1", "p2")] == [
        2,
        2,
        2,
    ]  # a tenth of each owner's
    assert splits["train"].texts[0] == 'say "0",\nthen é'
    assert splits["train"].labels[:3] == ["a", "b", "a"]
    assert len(_text.read(Source(source.data, client_column="who", newline="eos")).splits["train"]) == 2 * 54


def test_the_hash_of_a_corpus_changes_with_any_text_and_its_place():
    one = {"train": _text.Texts(["a", "b"], ["x", "x"])}
    assert _text.digest(one) == _text.digest({"train": _text.Texts(["a", "b"], ["y", "z"])})
    for other in (["ab"], ["b", "a"], ["a", "b "]):
        assert _text.digest(one) != _text.digest({"train": _text.Texts(other, ["x"] * len(other))})


# tokens, words and bytes ------------------------------------------------------------------------

LINES = st.lists(st.text(alphabet="ab é漢😀\t", max_size=12).map(str.strip), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(lines=LINES)
def test_credited_words_and_bytes_add_up_to_those_of_the_text_with_eos_for_each_newline(tokenizer, lines):
    row = _tokens.tokenise(tokenizer, lines, 1, 320)
    assert row.words.sum() == sum(len(line.split()) + 1 for line in lines)
    assert row.bytes.sum() == sum(len(line.encode()) + 1 for line in lines)
    expected = [token for line in lines for token in [*tokenizer.encode(line, add_special_tokens=False), 1]]
    assert row.tokens.tolist() == expected
    assert row.stops[-1] == len(expected)
    text = _tokens.lines(lines)
    assert text[: row.ends[row.stops[0] - 1]] == lines[0] + "\n"


def test_a_word_is_credited_to_the_token_in_which_it_ends(tokenizer):
    row = _tokens.tokenise(tokenizer, ["ship zq ship"], 1, 320)
    tokens = tokenizer.convert_ids_to_tokens(row.tokens.tolist())
    after = [*tokens[1:], "Ġ"]
    assert row.words.tolist() == [
        int(t == "</s>" or n[0] == "Ġ" or n == "</s>") for t, n in zip(tokens, after, strict=True)
    ]
    assert row.bytes.tolist() == [len(t) for t in tokens[:-1]] + [1]  # plain letters: a byte each


def test_more_texts_than_one_chunk_give_the_same_stream(tokenizer, monkeypatch):
    lines = [f"the ship {k} sails" for k in range(50)]
    once = _tokens.tokenise(tokenizer, lines, 1, 320)
    monkeypatch.setattr(_tokens, "CHUNK", 7)
    again = _tokens.tokenise(tokenizer, lines, 1, 320)
    for name in ("tokens", "words", "bytes", "ends", "stops"):
        assert np.array_equal(getattr(once, name), getattr(again, name))


def test_a_tokenizer_without_offsets_spreads_words_evenly_and_keeps_their_sum(tokenizer):
    class Slow:
        is_fast = False

        def encode(self, text, add_special_tokens):
            return tokenizer.encode(text, add_special_tokens=add_special_tokens)

    slow, fast = (_tokens.tokenise(t, ["the ship zq sails", ""], 1, 320) for t in (Slow(), tokenizer))
    assert np.array_equal(slow.tokens, fast.tokens)
    assert (slow.words.sum(), slow.bytes.sum()) == (fast.words.sum(), fast.bytes.sum()) == (6, 19)


def test_windows_predict_every_token_once_after_the_one_before_it(tokenizer):
    row = _tokens.tokenise(tokenizer, ["the ship sails over a deep blue sea"] * 3, 1, 320)
    n = row.tokens.size
    found = _tokens.whole(row, 5, context=0)
    predicted = np.concatenate([w[1 : 1 + c] for w, c in zip(found.tokens, found.counts, strict=True)])
    assert np.array_equal(predicted, row.tokens)
    assert found.counts.tolist() == [5] * (n // 5) + ([n % 5] if n % 5 else [])
    before = np.concatenate([[0], row.tokens])
    assert np.array_equal(found.tokens[:, 0], before[:n:5])
    assert (found.words.sum(), found.bytes.sum()) == (row.words.sum(), row.bytes.sum())
    full = _tokens.full(row, np.arange(n), 5, context=0)
    assert np.array_equal(full.tokens, found.tokens[: n // 5])


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    seq=st.integers(1, 8),
    more=st.integers(0, 60),
)
def test_blocks_cover_their_run_and_none_is_below_the_minimum_unless_the_run_is(lengths, seq, more):
    stops = np.cumsum(lengths)
    minimum = 2 * seq
    made = list(_tokens.cuts(np.array([0]), stops[-1:], stops, minimum + more, minimum))
    assert made[0][0] == 0
    assert made[-1][1] == stops[-1]
    assert all(a[1] == b[0] for a, b in pairwise(made))
    assert min(b - a for a, b in made) >= min(minimum, int(stops[-1]))


# shards -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "partition",
    [{"kind": "iid"}, {"kind": "contiguous"}, {"kind": "dirichlet", "alpha": 0.1, "topics": 3},
     {"kind": "pathological", "classes": 1, "topics": 3}, {"kind": "quantity", "law": "zipf"}],
    ids=lambda p: p["kind"],
)  # fmt: skip
def test_every_client_trains_on_some_windows_holds_some_out_and_shares_none(llama, text_folder, partition):
    task = language(llama, text_folder, partition=partition)
    assert task.clients == 6
    rows = [*task.splits.training, *task.splits.held_out]
    assert sorted(np.concatenate(rows).tolist()) == list(range(len(task.windows)))
    assert min(len(r) for r in rows) >= 1
    assert (task.windows.counts == 16).all()
    for mine, apart in zip(task.splits.training, task.splits.held_out, strict=True):
        assert len(apart) == max(1, round(0.1 * (len(mine) + len(apart))))
    lost = task.facts["train_tokens"] - 16 * len(task.windows)
    assert 0 <= lost < 16 * task.clients  # only what does not fill a client's last window


def test_topics_separate_the_clients_and_iid_does_not(llama, text_folder):
    skewed = language(
        llama, text_folder, clients=3, partition={"kind": "pathological", "classes": 1, "topics": 3}
    )
    even = language(llama, text_folder, clients=3)
    assert skewed.facts["class_divergence_bits"] > 0.3
    assert skewed.facts["class_divergence_iid_bits"] < 0.02
    assert skewed.facts["token_divergence_bits"] > 10 * even.facts["token_divergence_bits"]
    assert skewed.facts["token_divergence_iid_bits"] < 0.1 * skewed.facts["token_divergence_bits"]


def test_natural_owners_and_label_columns_decide_who_has_what(llama, themes, tmp_path):
    rows = [
        {"text": line, "who": f"{theme}-{k % 2}", "theme": theme}
        for theme in ("sea", "farm", "law")
        for k, line in enumerate(themes(theme, 100))
    ]
    rng = np.random.default_rng(0)
    write_table(tmp_path / "t.csv", [rows[i] for i in rng.permutation(len(rows))])
    columns = {"client_column": "who", "label_column": "theme"}
    natural = language(llama, tmp_path / "t.csv", partition={"kind": "natural"}, **columns)
    assert natural.facts["class_divergence_bits"] > 0.3
    by_label = language(
        llama, tmp_path / "t.csv", clients=3, partition={"kind": "pathological", "classes": 1}, **columns
    )
    assert by_label.facts["class_names"] == ["farm", "law", "sea"]
    assert by_label.facts["class_divergence_bits"] > 0.3
    with pytest.raises(DataError) as error:
        language(
            llama, tmp_path / "t.csv", partition={"kind": "dirichlet", "over": "label"}, client_column="who"
        )
    assert "task.label_column" in one_sentence(error)


def test_the_same_seed_gives_the_same_task_to_the_byte_and_another_seed_another(llama, text_folder):
    one, two, other = (language(llama, text_folder, seed=s) for s in (3, 3, 4))
    assert pickle.dumps(one) == pickle.dumps(two)
    assert one.test.tokens.tobytes() == other.test.tokens.tobytes()
    assert any(
        not np.array_equal(a, b) for a, b in zip(one.splits.held_out, other.splits.held_out, strict=True)
    )


def test_a_pickled_task_holds_no_weights_and_works_in_another_process(task, llama):
    data = pickle.dumps(task)
    assert len(data) < 3 * sum(a.nbytes for a in (task.windows.tokens, task.test.tokens, task.valid.tokens))
    code = (
        "import sys, pickle, os\n"
        "os.environ['HF_HUB_OFFLINE'] = '1'\n"
        "from fedsim.jobs import Job\n"
        "from fedsim.config.experiment import LocalConfig\n"
        "task = pickle.loads(sys.stdin.buffer.read())\n"
        "job = Job(1, 0, task.initial(), LocalConfig(lr=0.01, epochs=1, batch=4), 0)\n"
        "sys.stdout.buffer.write(task.train([job])[0].end.tobytes())\n"
    )
    out = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True).stdout
    assert out == task.train([Job(1, 0, task.initial(), LOCAL, 0)])[0].end.tobytes()


# training and scoring ---------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(client=st.integers(0, 5), batch=st.integers(1, 9), length=st.integers(1, 2), by_steps=st.booleans())
def test_tokens_foretold_are_the_tokens_trained_on(task, client, batch, length, by_steps):
    local = LocalConfig(lr=0.01, batch=batch, **({"steps": length} if by_steps else {"epochs": length}))
    update = task.train([Job(client, 0, task.initial(), local, 0)])[0]
    assert update.tokens == task.tokens(client, local)
    assert update.examples <= task.examples(client) == len(task.splits.training[client])


def test_a_batch_of_jobs_gives_what_each_gives_alone(task):
    """To the bit where products treat rows alike; by SGD, for AdamW lifts the rounding of a zero to a step."""
    start, local = task.initial(), LocalConfig(optimizer="sgd", lr=0.5, steps=3, batch=4)
    jobs = [Job(c, 0, start, local, 0) for c in (4, 0, 2)]
    together = task.train(jobs)
    agree(together, [task.train([job])[0] for job in jobs], jobs)
    assert len({u.end.tobytes() for u in together}) == 3


def test_perplexity_is_exp_of_the_mean_nll_of_hand_computed_logits(task, llama):
    sums = total(task, task.initial())
    model = hub.weights(llama)
    nll, count = 0.0, 0
    with torch.no_grad():
        for ids, real in zip(task.test.tokens.astype(np.int64), task.test.counts, strict=True):
            logits = model(torch.from_numpy(ids[None, :-1])).logits[0].double()
            logp = torch.log_softmax(logits, dim=-1)[torch.arange(16), torch.from_numpy(ids[1:])]
            nll -= float(logp[:real].sum())
            count += int(real)
    assert sums["tokens"] == count
    assert sums["nll"] == pytest.approx(nll, rel=1e-6)
    metrics = task.metrics(sums)
    assert next(iter(metrics)) == "perplexity"
    assert metrics["perplexity"] == pytest.approx(math.exp(nll / count), rel=1e-5)
    assert metrics["loss"] == pytest.approx(nll / count, rel=1e-6)


def test_word_perplexity_and_bits_per_byte_count_the_text_s_words_eos_and_bytes(task, text_folder):
    lines = (text_folder / "tiny.test.txt").read_text().split("\n")[:-1]
    sums = total(task, task.initial())
    assert sums["words"] == sum(len(line.split()) + 1 for line in lines)
    assert sums["bytes"] == sum(len(line.strip().encode()) + 1 for line in lines)
    metrics = task.metrics(sums)
    assert metrics["word_perplexity"] == pytest.approx(
        metrics["perplexity"] ** (sums["tokens"] / sums["words"])
    )
    assert metrics["bits_per_byte"] == pytest.approx(sums["nll"] / sums["bytes"] / math.log(2))
    assert task.metrics({"nll": 1e6, "tokens": 10, "words": 1, "bytes": 1})["perplexity"] == math.inf


def test_a_mean_over_splits_is_weighted_by_tokens_not_by_pieces(task):
    parts = [
        {"nll": 10.0, "tokens": 10.0, "words": 5.0, "bytes": 20.0},
        {"nll": 90.0, "tokens": 30.0, "words": 5.0, "bytes": 20.0},
    ]
    assert task.metrics(add_sums(parts))["loss"] == 100 / 40


def test_clients_is_the_pool_of_every_client_s_held_out_part(task):
    vector = task.initial()
    pooled = total(task, vector, "clients")
    each = add_sums([total(task, vector, "client", c) for c in range(task.clients)])
    assert {k: pooled[k] for k in ("tokens", "words", "bytes")} == {
        k: each[k] for k in ("tokens", "words", "bytes")
    }
    assert pooled["nll"] == pytest.approx(each["nll"], rel=1e-6)


def test_probes_are_pieces_of_32_windows_that_cover_a_split_once(task):
    probes = task.probes("test")
    assert probes[0] == Probe("test", 0, 32)
    assert [p.start for p in probes[1:]] == [p.stop for p in probes[:-1]]
    assert probes[-1].stop == len(task.test)
    assert [p.stop - p.start for p in task.probes("test", windows=40)] == [32, 8]
    assert task.probes("test", windows=40)[0] == probes[0]
    assert sum(p.stop - p.start for p in task.probes("client", client=3)) == len(task.splits.held_out[3])


def test_scores_are_the_same_to_the_bit_whatever_was_done_in_between(task):
    probe = task.probes("test")[1]
    vector = task.initial()
    first = task.score(vector, probe)
    task.train([Job(0, 0, vector, LOCAL, 0)])
    assert task.score(vector, probe) == first


def test_training_on_all_clients_lowers_perplexity_on_the_test_split(task):
    vector = task.initial()
    before = task.metrics(total(task, vector))["perplexity"]
    for visit in range(2):
        ends = [u.end for u in task.train([Job(c, visit, vector, LOCAL, 0) for c in range(task.clients)])]
        vector = np.mean(ends, axis=0, dtype=np.float64).astype(np.float32)
    assert task.metrics(total(task, vector))["perplexity"] < 0.9 * before


def test_the_saved_adapter_gives_stock_peft_the_same_perplexity(gpt2, text_folder, tmp_path):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    task = language(gpt2, text_folder)
    vector = task.train([Job(0, 0, task.initial(), LOCAL, 0)])[0].end
    task.save_adapter(vector, tmp_path / "adapter")
    loaded = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(gpt2), tmp_path / "adapter"
    ).eval()
    nll = 0.0
    with torch.no_grad():
        for ids, real in zip(task.test.tokens.astype(np.int64), task.test.counts, strict=True):
            labels = torch.from_numpy(ids[None]).clone()
            labels[:, 1 + real :] = -100
            logits = loaded(torch.from_numpy(ids[None, :-1])).logits
            nll += float(torch.nn.functional.cross_entropy(logits[0], labels[0, 1:], reduction="sum"))
    ours = task.metrics(total(task, vector))["perplexity"]
    assert math.exp(nll / task.test.counts.sum()) == pytest.approx(ours, abs=1e-3)


def test_full_training_starts_at_the_pretrained_weights_and_moves_them(llama, text_folder):
    task = language(llama, text_folder, lora=LoraConfig(full=True))
    frozen = language(llama, text_folder)
    start = task.initial()
    assert total(task, start) == pytest.approx(total(frozen, frozen.initial()), rel=1e-6)
    update = task.train([Job(0, 0, start, LocalConfig(lr=1e-3, epochs=1, batch=4), 0)])[0]
    assert update.end.shape == (task.shape.params,) == (task.layout.size,)
    assert np.array_equal(task.initial(), start)  # training has not changed what version 0 is
    assert task.shape.full
    assert task.describe()["adapter_bytes"] == 4 * task.shape.params


def test_what_is_said_about_the_task_can_be_written_as_json(task, text_folder):
    facts = json.loads(json.dumps(task.describe()))
    assert facts["params"] == task.shape.params
    assert facts["trainable_params"] == task.layout.size
    assert facts["train_words"] == 600 + len((text_folder / "tiny.train.txt").read_text().split())
    assert len(facts["corpus_sha256"]) == 64
    assert facts["test_windows"] == len(task.test)


# the component ----------------------------------------------------------------------------------


def test_the_component_is_found_by_its_kind_and_has_the_documented_defaults():
    found = build("tasks", {"kind": "language", "partition": {"kind": "dirichlet", "alpha": 0.3}})
    assert isinstance(found, Language)
    assert (found.model, found.data, found.sequence, found.holdout) == ("builtin", "builtin", 64, 0.1)
    assert found.partition.alpha == 0.3
    assert Language.model_validate(found.model_dump(mode="json")) == found


def test_configuring_imports_neither_torch_nor_transformers():
    code = (
        "import sys; from fedsim.tasks.language import Language; Language();"
        "print(sorted({'torch', 'transformers', 'peft', 'datasets', 'sklearn', 'pandas'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"


def test_the_built_in_model_and_text_make_a_task_by_labels_and_by_documents():
    task = Language(partition={"kind": "dirichlet", "alpha": 0.3}).build(
        TaskContext(20, 0, LoraConfig(), LOCAL)
    )
    assert task.facts["classes_from"] == "labels"
    assert task.clients == 20
    assert task.valid is None


# what is wrong with data ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "fields", "said"),
    [
        ("missing.txt", None, {}, "no such file or folder"),
        ("empty.txt", " \n\n", {}, "the file is empty"),
        ("latin.txt", b"caf\xe9 au lait", {}, "is not UTF-8 text"),
        ("data.zip", b"PK", {}, "this kind of file cannot be read"),
        ("one.txt", "one", {}, "too short to hold out a tenth"),
        ("a.txt", "a\n" * 50, {"text_column": "text"}, "a text file has no columns"),
        ("a.csv", "text,id\na,1\n", {"text_column": "texts"}, "did you mean 'text'"),
        ("b.csv", "title,body\na,b\n", {}, "which column is the text"),
        ("c.csv", "text,who\na,x\nb,\n", {"client_column": "who"}, "row 2 has no who"),
        ("d.csv", "", {}, "no columns at all"),
        ("e.jsonl", '{"text": "a"}\n[1]\n', {}, "line 2 is not a JSON object"),
        ("f.jsonl", '{"text": "a"}\n{"text', {}, "line 2: is not JSON"),
        ("g.jsonl", '{"text": "a"}\n{"text": 3}\n', {}, "row 2 is not text (got 3)"),
        ("h.parquet", b"PAR1 but no", {}, "is not a Parquet file"),
        ("i.txt", "only a few words\n" * 12, {}, "too many for the data"),
    ],
)  # fmt: skip
def test_broken_data_are_answered_with_one_sentence(llama, tmp_path, name, content, fields, said):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as error:
        language(llama, path, **fields)
    assert said in one_sentence(error)


def test_a_folder_without_a_training_file_or_with_an_ambiguous_one_is_refused(llama, tmp_path):
    (tmp_path / "story.txt").write_text("once upon a time\n")
    with pytest.raises(DataError) as error:
        language(llama, tmp_path)
    assert "story.txt" in one_sentence(error)
    (tmp_path / "train_and_test.txt").write_text("once upon a time\n")
    with pytest.raises(DataError) as error:
        language(llama, tmp_path)
    assert "several splits" in one_sentence(error)


def test_a_hub_data_set_offline_says_so(llama):
    with pytest.raises(DataError) as error:
        language(llama, "someone/some-text-that-is-not-cached")
    assert "from the hub" in one_sentence(error)


def test_what_does_not_fit_the_model_is_refused_before_anything_starts(llama, text_folder):
    with pytest.raises(DataError) as error:
        language(llama, text_folder, sequence=65)
    assert "reads 64 tokens at most (got 65)" in one_sentence(error)
    with pytest.raises(ExperimentError) as wrong:
        language(llama, text_folder, lora=LoraConfig(targets="c_attn"))
    assert "q_proj" in one_sentence(wrong)
    with pytest.raises(DataError) as error:
        language(llama, text_folder, clients=5000)
    assert "5000 clients need 160000 tokens" in one_sentence(error)


def test_a_split_that_is_not_there_is_named(llama, text_folder, tmp_path):
    (tmp_path / "one.txt").write_text((text_folder / "tiny.train.txt").read_text())
    task = language(llama, tmp_path / "one.txt")
    with pytest.raises(DataError) as error:
        task.probes("valid")
    assert "(got 'valid')" in one_sentence(error)
