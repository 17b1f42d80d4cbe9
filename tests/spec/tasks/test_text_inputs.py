"""Text as people have it: tables in every dress, folders with everything in them, owners by folder, test text held out."""

from __future__ import annotations

import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError
from worlds.text_files import written

from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import DataError
from fedsim.jobs import TaskContext
from fedsim.tasks._language.held_out import held_out
from fedsim.tasks._language.text import Source, read
from fedsim.tasks._language.units import Texts
from fedsim.tasks.language import Language

LINES = [f"line {k}, and more; {k}" for k in range(40)]


def train_lines(path, **fields):
    return read(Source(str(path), **fields)).splits["train"].texts


def said(path, **fields):
    """What is said of data that are refused: one sentence and a fix."""
    with pytest.raises(DataError) as error:
        read(Source(str(path), **fields))
    head, _, fix = str(error.value).partition("\n  fix: ")
    assert fix
    assert "\n" not in head + fix
    return str(error.value)


# tables -----------------------------------------------------------------------------------------

OBJECTS = "".join(json.dumps({"text": line}) + "\n" for line in LINES)
QUOTED = "text\n" + "".join(f'"{line}"\n' for line in LINES)
DRESSES = {
    "a.csv": QUOTED, "a.CSV": QUOTED, "b.csv": "\ufeff" + QUOTED, "c.csv": QUOTED.replace("\n", "\r\n"),
    "d.csv": ",text\n" + "".join(f'{k},"{line}"\n' for k, line in enumerate(LINES)),
    "a.tsv": "text\tn\n" + "".join(f"{line}\t1\n" for line in LINES), "a.TSV": "text\n" + "\n".join(LINES),
    "a.jsonl": OBJECTS, "a.JSONL": OBJECTS, "b.jsonl": "\ufeff" + OBJECTS, "c.jsonl": OBJECTS.replace("\n", "\r\n\r\n"),
    "a.ndjson": OBJECTS, "a.json": OBJECTS,
    "b.json": json.dumps([{"text": line} for line in LINES]),
    "c.json": "\ufeff" + json.dumps([{"text": line} for line in LINES], indent=1),
    "d.jsonl": json.dumps([{"text": line} for line in LINES]),
    "a.txt": "\ufeff" + "\n".join(LINES), "a.TXT": "\r\n".join(LINES) + "\r\n", "b.txt": "\r".join(LINES),
}  # fmt: skip


@pytest.mark.parametrize("name", DRESSES)
def test_the_same_lines_in_every_dress(tmp_path, name):
    (tmp_path / name).write_bytes(DRESSES[name].encode())
    corpus = read(Source(str(tmp_path / name)))
    held = corpus.splits["test"].texts
    assert sorted(corpus.splits["train"].texts + held) == sorted(LINES)
    assert len(held) == 4


REFUSED = {
    "unquoted commas": ("a.csv", "text\nline 1, and more, 1\n", ["line 2", "needs 1 cell (got 3)", "double quotes"]),
    "a cell too few": ("a.csv", "text,n\na,1\nb\n", ["line 3", "needs 2 cells (got 1)"]),
    "semicolons": ("a.csv", "text;label\na;0\n", ["not separated by commas", "sep=';'"]),
    "tabs in a .csv": ("a.csv", "text\tlabel\na\t0\n", ["not separated by commas"]),
    "two columns of a name": ("a.csv", "text,text\na,b\n", ["two columns have one name (got 'text')"]),
    "quotes that do not close": ("a.csv", 'text,n\n"a,1\nb,2\n', ["line 2", "is not CSV"]),
    "UTF-16": ("a.csv", "text\na\n".encode("utf-16"), ["is not UTF-8 text but UTF-16", "save it as UTF-8"]),
    "Latin-1": ("a.csv", b"text\nb\ncaf\xe9\n", ["line 3", "byte 4", "0xe9"]),
    "a header alone": ("a.csv", "text\n", ["the table has no rows"]),
    "an empty .jsonl": ("a.jsonl", "", ["no columns at all"]),
    "a list of numbers": ("a.json", "[1, 2]", ["item 1 is not a JSON object"]),
    "an object": ("a.json", '{\n"text": ["a", "b"]\n}', ["over several lines, not rows", "orient='records'"]),
    "half a character": ("a.jsonl", '{"text": "a\\ud800"}\n', ["row 1 holds half of a character"]),
    "no text in a row": ("a.jsonl", '{"text": "a"}\n{"txt": "b"}\n', ["row 2 is not text (got None)", "fill it in"]),
    "Alpaca's columns": (
        "a.json",
        json.dumps([{"instruction": "do", "input": "it", "output": "done"}]),
        ["which column is the text?", "instruction, input, output", "joined into one column"],
    ),
    "chats": (
        "a.jsonl",
        2 * (json.dumps({"messages": [{"role": "user", "content": "hi"}], "id": 1}) + "\n"),
        ["no column holds text", "messages, id", "apply_chat_template"],
    ),
    "packed": ("train.jsonl.gz", b"\x1f\x8b", ["cannot be read", "gunzip train.jsonl.gz"]),
    "packed under another name": ("a.jsonl", b"\x1f\x8b\x08", ["packed (gzip)", "unpack it first"]),
    "a spreadsheet": ("a.xlsx", b"PK\x03\x04", ["cannot be read", "save it as CSV (UTF-8)"]),
    "a document": ("a.pdf", b"%PDF", ["cannot be read", "plain text"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_other_tables_are_refused_with_a_fix_that_fixes(tmp_path, case):
    name, content, expected = REFUSED[case]
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    text = said(tmp_path / name)
    for words in expected:
        assert words in text
    assert "rename" not in text


def test_a_column_of_chats_that_is_asked_for_is_no_text(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        2 * (json.dumps({"m": [{"role": "user", "content": "hi"}], "t": "a"}) + "\n")
    )
    assert "holds chats (lists of messages), not text" in said(tmp_path / "a.jsonl", text_column="m")


def test_columns_are_not_joined_and_that_is_said():
    with pytest.raises(ValidationError, match="columns are not joined: it is the name of one column"):
        Language(text_column=["instruction", "output"])


def test_a_parquet_file_is_read_alone_whatever_its_folders_are_called(tmp_path):
    (tmp_path / "label=3").mkdir()
    pq.write_table(pa.table({"text": LINES}), tmp_path / "label=3" / "a.PARQUET")
    assert len(train_lines(tmp_path / "label=3" / "a.PARQUET")) == 36
    twice = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])
    pq.write_table(twice, tmp_path / "twice.parquet")
    assert "two columns have one name" in said(tmp_path / "twice.parquet")


def test_a_missing_owner_or_label_is_said_also_as_not_a_number(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"], "who": [1.0, float("nan")]}), tmp_path / "a.parquet")
    assert "row 2 has no who" in said(tmp_path / "a.parquet", client_column="who")


# folders ----------------------------------------------------------------------------------------


def test_a_folder_with_everything_in_it_gives_what_is_meant_and_says_the_rest(tmp_path):
    for name in ("TRAIN.TXT", "sub/train/more.csv", "dev.txt", "Test.tsv"):
        written(tmp_path / name, f"text\n{name}\n" if name[-3:].lower() != "txt" else f"{name}\n")
    for name in ("contest.txt", "constraints.txt", "train/README.md", "train/LICENSE", "train/notes.pdf"):
        written(tmp_path / name, "not this\n")
    for name in ("._train.txt", "__MACOSX/train.txt", ".ipynb_checkpoints/train.txt", "train/Thumbs.db"):
        written(tmp_path / name, b"\x00\xff")
    (tmp_path / "train" / "again").symlink_to(tmp_path)
    corpus = read(Source(str(tmp_path)))
    assert {name: texts.texts for name, texts in corpus.splits.items()} == {
        "train": ["TRAIN.TXT", "sub/train/more.csv"], "valid": ["dev.txt"], "test": ["Test.tsv"],
    }  # fmt: skip
    left, unnamed, kinds = corpus.notices
    assert kinds == "train is read from files of several kinds, .csv, .txt: is the same in two of them?"
    assert left.startswith("4 files left out")
    for name in ("train/LICENSE", "train/README.md", "train/again", "train/notes.pdf"):
        assert name in left
    assert unnamed.startswith("2 files left out")
    assert "constraints.txt, contest.txt" in unnamed


def test_validation_text_is_no_test_text(tmp_path):
    for split in ("train", "val", "test"):
        written(tmp_path / split / "a.txt", f"{split}\n")
    assert read(Source(str(tmp_path))).splits["test"].texts == ["test"]
    (tmp_path / "test" / "a.txt").unlink()
    written(tmp_path / "train" / "a.txt", "".join(f"{k}\n" for k in range(20)))
    corpus = read(Source(str(tmp_path)))
    assert list(corpus.splits) == ["train", "valid", "test"]
    assert corpus.splits["test"].texts == ["18", "19"]
    assert "no test text was given: the last tenth is held out" in corpus.notices[-1]


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["train.jsonl.gz"], ["train.jsonl.gz", "gunzip"]),
        (["train.docx"], ["train.docx", "plain text"]),
        (["story.txt", "x.bin"], ["story.txt, x.bin", "*train*"]),
        (["README.md"], ["README.md", "*train*"]),
        ([".train.txt"], ["nothing that could be read"]),
        (["train/empty.txt"], ["the file is empty", "empty.txt"]),
    ],
)
def test_a_folder_without_training_text_says_what_there_is(tmp_path, files, expected):
    for name in files:
        written(tmp_path / name, "" if "empty" in name else "x\n")
    for words in expected:
        assert words in said(tmp_path)


def test_a_link_to_the_training_folder_is_not_followed_and_said(tmp_path):
    written(tmp_path / "real" / "train" / "a.txt", "a\n")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "real" / "train")
    assert "links to folders are not followed" in said(tmp_path / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_one_sentence(tmp_path):
    written(tmp_path / "train.txt", "a\n").chmod(0)
    assert "cannot be read (Permission denied)" in said(tmp_path)


@pytest.mark.parametrize(
    "name", ["train.txt", "Train.CSV", "train.jsonl.gz", "a.xlsx", "a.arrow", "no/such/folder/a.txt"]
)
def test_a_file_that_is_not_there_is_not_looked_for_on_the_hub(name):
    assert "there is no such file or folder" in said(name)


@pytest.mark.parametrize("name", ["a" * 5000, "x/" * 3000, "a\0b"])
def test_a_path_that_no_file_can_have_is_one_sentence(name):
    assert "task.data" in said(name)


# owners -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "owners"),
    [
        (["alice/train.txt", "bob/train.txt"], ["alice", "bob"]),
        (["train/alice.txt", "train/bob.txt"], ["alice", "bob"]),
        (["train/alice/1.txt", "train/alice/2.txt", "train/bob/1.txt"], ["alice", "bob"]),
        (["d/alice/train/1.csv", "d/bob/train/1.csv"], ["alice", "bob"]),
        (["novels/train/a.txt", "novels/train/b.txt"], ["a", "b"]),
        (["alice_train.txt", "bob_train.txt"], ["alice", "bob"]),
        (["train-00000-of-00002.csv", "train-00001-of-00002.csv"], ["table"]),
        (["train/a.csv", "train/b.csv"], ["table"]),
    ],
)
def test_whose_text_is_by_folder_or_by_file(tmp_path, files, owners):
    for name in files:
        written(tmp_path / name, "text\n" + 20 * "word\n")
    assert list(dict.fromkeys(read(Source(str(tmp_path))).splits["train"].owners)) == owners


def test_natural_clients_are_the_folders(llama, themes, tmp_path):
    for owner in ("alice", "bob"):
        theme = {"alice": "sea", "bob": "law"}[owner]
        written(tmp_path / owner / "train.txt", "\n".join(themes(theme, 100)))
    context = TaskContext(2, 0, LoraConfig(r=2), LocalConfig(lr=0.01, epochs=1, batch=4))
    task = Language(model=llama, data=str(tmp_path), sequence=16, partition={"kind": "natural"}).build(
        context
    )
    assert task.facts["token_divergence_bits"] > 5 * task.facts["token_divergence_iid_bits"] > 0
    assert any("held out" in notice for notice in task.describe()["notices"])


# test text that nobody gave ---------------------------------------------------------------------


def labelled(labels, owners=None, rows=True):
    return Texts([f"{i}" for i in range(len(labels))], owners or ["table"] * len(labels), labels, rows)


def test_a_table_sorted_by_label_gives_a_tenth_of_each_label():
    train, test, how = held_out(labelled(["a"] * 100 + ["b"] * 20 + ["c"] * 30))
    assert [test.labels.count(c) for c in "abc"] == [10, 2, 3]
    assert test.texts == [str(i) for i in (*range(90, 100), 118, 119, 147, 148, 149)]
    assert len(train) + len(test) == 150
    assert "each label" in how


def test_rows_of_a_table_without_labels_give_the_end_of_ten_stretches():
    whole = Texts([str(i) for i in range(1000)], ["table"] * 1000, rows=True)
    _, test, how = held_out(whole)
    numbers = np.array([int(text) for text in test.texts])
    assert numbers.tolist() == [i for i in range(1000) if i % 100 >= 90]
    assert "ten stretches" in how


def test_few_units_of_many_labels_are_held_out_by_owner_and_few_of_all_at_the_end():
    many = labelled([str(i) for i in range(30)], ["x", "y"] * 15, rows=False)
    assert held_out(many)[1].owners == ["x", "y"]
    assert held_out(labelled(list("abcde")))[1].texts == ["4"]
    with pytest.raises(DataError, match="too short to hold out a tenth"):
        held_out(labelled(["a"]))
