"""Broken tables, folders and tokenizers end in text or in one sentence: no other error, and nothing is written."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from worlds import broken_inputs, reading_broken

FEW = settings(max_examples=200, deadline=10_000)


@pytest.fixture(scope="module", autouse=True)
def _warm():
    reading_broken.warm()


@FEW
@given(
    suffix=st.sampled_from(sorted(broken_inputs.WHOLE)), changes=broken_inputs.CHANGES, columns=st.booleans()
)
def test_a_broken_file_is_read_or_refused_in_one_sentence(suffix, changes, columns):
    reading_broken.read_a_file(suffix, changes, columns=columns)


@FEW
@given(paths=broken_inputs.PATHS, data=st.sampled_from([b"a\nb\n", b"text\na\n", b"", b"\xff"]))
def test_a_folder_of_odd_names_is_read_or_refused_in_one_sentence(paths, data):
    reading_broken.read_a_folder(paths, data)


@settings(max_examples=60, deadline=10_000)
@given(data=st.data())
def test_a_broken_tokenizer_is_used_or_refused_in_one_sentence(data):
    reading_broken.use_a_tokenizer(data)
