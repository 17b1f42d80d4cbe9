"""Tens of thousands of broken tables, folders and tokenizers: text or one sentence, within ten seconds each."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from worlds import broken_inputs, reading_broken

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def many(count):
    return settings(
        max_examples=count, deadline=10_000, database=None, suppress_health_check=list(HealthCheck)
    )


@pytest.fixture(scope="module", autouse=True)
def _warm():
    reading_broken.warm()


@many(25_000)
@given(
    suffix=st.sampled_from(sorted(broken_inputs.WHOLE)), changes=broken_inputs.CHANGES, columns=st.booleans()
)
def test_25_000_broken_files_are_read_or_refused_in_one_sentence(suffix, changes, columns):
    reading_broken.read_a_file(suffix, changes, columns=columns)


@many(5_000)
@given(paths=broken_inputs.PATHS, data=st.sampled_from([b"a\nb\n", b"text\na\n", b"", b"\xff"]))
def test_5_000_folders_of_odd_names_are_read_or_refused_in_one_sentence(paths, data):
    reading_broken.read_a_folder(paths, data)


@many(5_000)
@given(data=st.data())
def test_5_000_broken_tokenizers_are_used_or_refused_in_one_sentence(data):
    reading_broken.use_a_tokenizer(data)
