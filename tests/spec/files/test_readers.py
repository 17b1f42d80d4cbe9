"""Text, CSV, TSV and JSON rows: right to the cell, or refused in one sentence with its line."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedsim.files.delimited import read_grid
from fedsim.files.json_rows import json_rows
from fedsim.files.opened import UnreadableError
from fedsim.files.text_file import decoded, half_character, read_text
from fedsim.files.user_tables import read_rows

CELLS = st.text(
    alphabet=st.one_of(
        st.sampled_from(',;\t"\n\r# é漢😀|'), st.characters(codec="utf-8", exclude_characters="\0")
    ),
    max_size=8,
)


def refused(call, *args):
    with pytest.raises(UnreadableError) as error:
        call(*args)
    said = error.value
    assert said.fix
    assert "\n" not in f"{said.what}{said.fix}"
    return said


# text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_no_text_and_line_ends_are_one(tmp_path, mark):
    (tmp_path / "a.txt").write_bytes(mark + "café\r\nb\rc\n".encode())
    assert read_text(tmp_path / "a.txt") == "café\nb\nc\n"


@pytest.mark.parametrize(
    ("data", "said", "line"),
    [
        ("text".encode("utf-16"), "UTF-16", None),
        (b"\xfe\xff\x00t", "UTF-16", None),
        ("text".encode("utf-32"), "UTF-32", None),
        ("text\nb".encode("utf-16-le"), "zero byte", 1),
        (b"a\nb\ncaf\xe9 au lait", "byte 4 of the line is 0xe9", 3),
        (b"\xef\xbb\xbfa\nb\x80", "byte 2 of the line is 0x80", 2),
        (b"\x1f\x8b\x08\x00", "packed (gzip)", None),
        (b"PK\x03\x04 and so on", "packed (zip)", None),
        (b"\xed\xa0\x80", "0xed", 1),
    ],
)
def test_other_encodings_are_named_with_the_line_and_the_byte(data, said, line):
    problem = refused(decoded, data)
    assert said in problem.what
    assert problem.line == line


def test_half_of_a_surrogate_pair_is_told_from_whole_characters():
    assert half_character("a😀é") is None
    assert half_character(json.loads('"x\\udc00"')) == "\\udc00"


@pytest.mark.parametrize("make", ["mkdir", "nothing", "pipe", "circle"])
def test_what_is_no_file_is_not_waited_for(tmp_path, make):
    import os

    path = tmp_path / "a.txt"
    if make == "mkdir":
        path.mkdir()
    elif make == "pipe":
        os.mkfifo(path)
    elif make == "circle":
        path.symlink_to(path)
    assert "is no file" in refused(read_text, path).what


# delimited --------------------------------------------------------------------------------------


@given(
    rows=st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=1, max_size=6),
    separator=st.sampled_from(",\t"),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_what_the_csv_module_writes_comes_back_to_the_cell(rows, separator, end):
    text = io.StringIO(newline="")
    every = any("\r" in cell for row in rows for cell in row)  # which Python 3.11 writes without quotes
    quoting = csv.QUOTE_ALL if every else csv.QUOTE_MINIMAL
    writer = csv.writer(text, delimiter=separator, lineterminator=end, quoting=quoting)
    writer.writerows([["a", "b", "c"], *rows])
    grid = read_grid(text.getvalue(), separator)
    assert grid.header == ["a", "b", "c"]
    assert grid.rows == rows
    assert grid.ragged == []


def test_rows_are_numbered_by_the_line_in_which_they_begin():
    grid = read_grid('a,b\n\n"1\n2",x\n3,y\n\n\n4,z\n', ",")
    assert grid.rows == [["1\n2", "x"], ["3", "y"], ["4", "z"]]
    assert grid.lines == [3, 5, 8]


def test_rows_of_another_length_are_kept_apart_with_their_lines():
    grid = read_grid("text\nline 1, and more, 1\nb\n", ",")
    assert grid.rows == [["b"]]
    assert grid.ragged == [(2, 3)]
    assert read_grid("a,b\n1\n", ",").ragged == [(2, 1)]
    assert read_grid("a,b\n  \n", ",").ragged == [(2, 1)]


@pytest.mark.parametrize(
    ("text", "separator", "said", "line"),
    [
        ("text;label\na;1\n", ",", "not separated by commas", None),
        ("text\tlabel\na\t1\n", ",", "not separated by commas", None),
        ("text|label\na|1\n", ",", "not separated by commas", None),
        ("text,label\na,1\n", "\t", "not separated by tabs", None),
        ("sep=,\ntext,label\na,1\n", ",", "the first line says what separates cells", 1),
        ("sep=;\ntext;label\na;1\n", ",", "not separated by commas", None),
        ("a,b,a\n1,2,3\n", ",", "two columns have one name", None),
        ("a,,b\n1,2,3\n", ",", "column 2 has no name", 1),
        ('a,b\n1,"2\n3,4\n', ",", "is not CSV", 2),
        ('a,b\n1,"2"3\n', ",", "is not CSV", 2),
        ('a\tb\n1\t"2"3\n', "\t", "is not TSV", 2),
    ],
)
def test_what_would_be_guessed_elsewhere_is_refused(text, separator, said, line):
    problem = refused(read_grid, text, separator)
    assert said in problem.what
    assert problem.line == line


def test_an_index_without_a_name_and_an_empty_column_at_the_end_are_left_out():
    grid = read_grid(",text,label,\n0,a,x,\n1,b,y,\n", ",")
    assert grid.header == ["text", "label"]
    assert grid.rows == [["a", "x"], ["b", "y"]]


def test_comments_are_facts_of_profile_tables_and_text_of_others():
    text = "# source: me\n\na,b\n1,2\n# 3,4\n"
    assert read_grid(text, ",", comments=True).comments == ["# source: me", ""]
    assert read_grid(text, ",", comments=True).rows == [["1", "2"]]
    assert read_grid("a\n# b\n", ",").rows == [["# b"]]


@pytest.mark.parametrize("suffix", [".csv", ".CSV", ".tsv", ".Tsv"])
def test_profile_tables_are_read_in_both_kinds_with_and_without_a_mark(tmp_path, suffix):
    mark = "," if suffix.lower() == ".csv" else "\t"
    path = tmp_path / f"t{suffix}"
    path.write_bytes(f"\ufeff# period_s: 60\r\na{mark}b\r\n1{mark} x \r\n".encode())
    rows = read_rows(path)
    assert rows.cells == {"a": ["1"], "b": ["x"]}
    assert rows.facts == {"period_s": "60"}
    assert rows.numbers == [3]


# JSON -------------------------------------------------------------------------------------------

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(rows=st.lists(st.dictionaries(st.text(max_size=4), VALUES, min_size=1), min_size=2, max_size=5))
def test_a_list_of_objects_and_objects_a_line_are_the_same_rows(rows):
    by_line = "".join(f"{json.dumps(row, ensure_ascii=False)}\n\n" for row in rows)
    assert json_rows(json.dumps(rows, indent=2)) == json_rows(json.dumps(rows)) == json_rows(by_line) == rows


@pytest.mark.parametrize(
    ("text", "said", "line"),
    [
        ('{"text": "a"}\n[1]\n', "line 2 is not a JSON object", None),
        ('[{"text": "a"}, 3]', "item 2 is not a JSON object", None),
        ('{"text": "a"}\n{"text', "is not JSON", 2),
        ('[{"text": "a"},\n{"text": }]', "is not JSON", 2),
        ("[1]\n[2]\n", "is not JSON", 2),
        ('{\n "text": "a"\n}\n', "over several lines", None),
        ('{"text": {"0": "a"}, "label": {"0": 1}}\n', "one JSON object of lists or objects", None),
        ('{"version": "1.1", "data": [{"text": "a"}]}\n', "one JSON object of lists or objects", None),
        ('{"users": ["a"], "user_data": {"a": {"x": ["b"]}}}', "one JSON object of lists or objects", None),
        ('{"text": "a", "text": "b"}\n', "gives one key twice", 1),
        ("[" * 100_000, "nested too deeply", 1),
        ('{"n": ' + "9" * 5000 + "}", "cannot be read", 1),
        ("text\n", "is not JSON", 1),
    ],
)
def test_what_is_not_rows_is_refused_with_its_line(text, said, line):
    problem = refused(json_rows, text)
    assert said in problem.what
    assert problem.line == line
