"""Reads broken inputs as a task does, and sees that whatever is wrong is said in one sentence."""

from __future__ import annotations

import json
import tempfile
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from fedsim.devices.table_checks import check
from fedsim.errors import DataError
from fedsim.tasks._language.build import _tokens
from fedsim.tasks._language.text import Source, Texts, digest, read
from fedsim.training import hub
from worlds.broken_inputs import CHANGES, JSON_LEAVES, LINES, WHOLE, changed, places_in, replaced
from worlds.tokenizers_of_all_kinds import PLAIN, SPECIAL, STORED, tokenizer


def in_one_sentence(call):
    """Return what a call gives, or None if it is refused, in one sentence with a fix."""
    try:
        return call()
    except DataError as error:
        head, _, fix = str(error).partition("\n  fix: ")
        assert fix, head
        assert "\n" not in head + fix, (head, fix)
        assert f"{head}{fix}".isprintable(), (head, fix)
        return None


@lru_cache
def whole(suffix):
    """A file of this kind that can be read."""
    if suffix != ".parquet":
        return WHOLE[suffix]
    with tempfile.TemporaryDirectory() as folder:
        pq.write_table(pa.table({"text": LINES, "who": ["x"] * len(LINES)}), Path(folder) / "a.parquet")
        return (Path(folder) / "a.parquet").read_bytes()


def files_below(folder):
    """Path -> bytes of every file below a folder, links apart."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return {path: path.read_bytes() for path in paths}


def checked(corpus):
    """A corpus holds text that can be written and told by a hash."""
    if corpus is not None:
        assert {"train", "test"} <= set(corpus.splits)
        assert len(digest(corpus.splits)) == 64
        for texts in corpus.splits.values():
            assert len(texts.texts) == len(texts.owners) > 0
            "".join(texts.texts).encode("utf-8")
        assert all(notice.isprintable() for notice in corpus.notices)


def read_a_file(suffix, changes, *, columns):
    """Read a changed file; nothing is written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a{suffix}"
        path.write_bytes(changed(whole(suffix), changes))
        before = files_below(Path(folder))
        asked = {"text_column": "text", "client_column": "who"} if columns and suffix != ".txt" else {}
        checked(in_one_sentence(lambda: read(Source(str(path), **asked))))
        for said in check(path):  # the same file as a profile table, which it is not
            head, _, fix = said.partition("\n  fix: ")
            assert fix
            assert "\n" not in head + fix
        assert files_below(Path(folder)) == before


def read_a_folder(paths, data):
    """Read a folder with files of these paths; nothing is written."""
    with tempfile.TemporaryDirectory() as folder:
        for parts in paths:
            path = Path(folder, *parts)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
            except (OSError, UnicodeError):
                continue  # a file is where a folder should be, or no file can be called so
        before = files_below(Path(folder))
        checked(in_one_sentence(lambda: read(Source(folder))))
        assert files_below(Path(folder)) == before


CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 400}


@lru_cache
def saved(kind, stored):
    """The files of a tokenizer."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer(kind, stored).save_pretrained(folder)
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def use_a_tokenizer(data):
    """Load a changed tokenizer and tokenise a text with it; `data` draws what is changed."""
    files = dict(saved(data.draw(st.sampled_from(sorted(PLAIN))), data.draw(st.sampled_from(sorted(STORED)))))
    name = data.draw(st.sampled_from(["tokenizer.json", "tokenizer.json", "tokenizer_config.json"]))
    if data.draw(st.booleans()):
        value = json.loads(files[name])
        for _ in range(data.draw(st.integers(1, 3))):
            places = [path for path in places_in(value) if path and len(path) < 6]
            if places:
                leaf = data.draw(st.just(...) | JSON_LEAVES)
                value = replaced(value, data.draw(st.sampled_from(places)), leaf)
        files[name] = json.dumps(value).encode()
    else:
        files[name] = changed(files[name], data.draw(CHANGES))
    _use(files)


def warm():
    """Load a sound tokenizer, so that no library is imported while a broken one is timed."""
    assert _use(saved(next(iter(PLAIN)), next(iter(STORED)))) is not None


def _use(files):
    """Tokenise with a tokenizer of these files; nothing is written."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "config.json").write_text(json.dumps(CONFIG))
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        before = files_below(Path(folder))
        texts = {"train": Texts([*LINES, "", f"{SPECIAL[1]} the ship 漢"], ["a"] * (len(LINES) + 2))}

        def use():
            return _tokens(hub.tokenizer(folder), texts, 400)

        used = in_one_sentence(use)
        hub.config.cache_clear()
        if used is not None:
            assert int(used[0]["train"].tokens.max()) < 400
        assert files_below(Path(folder)) == before
        return used
