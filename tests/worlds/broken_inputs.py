"""Files that people did not mean: whole ones that were cut, spliced, sprinkled and mixed, and folders of odd names."""

from __future__ import annotations

import json

from hypothesis import strategies as st

LINES = [f'line {k}, and ; more "{k}"' for k in range(12)]
WHOLE = {
    ".csv": b'text,who\n"a, b",x\nc,y\n"d\n""e""",x\n' * 3,
    ".tsv": b"text\twho\na\tx\nb\ty\n",
    ".jsonl": b'{"text": "a", "who": "x"}\n{"text": "b \\u00e9", "who": null}\n' * 3,
    ".json": json.dumps([{"text": line, "n": [1, {"a": None}]} for line in LINES], indent=1).encode(),
    ".txt": "\n".join([*LINES, "café 漢 😀"]).encode(),
    ".parquet": b"",
}
"""Suffix -> a file that can be read; the Parquet file is made where pyarrow is."""

SPRINKLED = st.sampled_from([
    b"\xef\xbb\xbf", b"\xff\xfe", b"\x00", b"\xe9", b"\r", b"\r\n", b"\n", b'"', b'""', b",", b";", b"\t", b"|", b"#", b"[", b"]",
    b"{", b"}", b":", b"null", b"NaN", b"1e999", b"-0", b"9" * 400, b"\\ud800", b"\\u0000", b"text", b"sep=;\n", b"\x1a", b"\xe2\x80\xa8",
    b"[" * 3000, b'{"a":' * 3000, b"\xed\xa0\x80", b"\x1f\x8b", b"PK\x03\x04", b"PAR1", b"text,text\n", b'"text"', b"\x0b\x0c\x1c\x85",
])  # fmt: skip
PLACE = st.floats(0, 1)
CHANGE = st.one_of(
    st.tuples(st.just("put"), PLACE, SPRINKLED),
    st.tuples(st.just("put"), PLACE, st.binary(max_size=4)),
    st.tuples(st.just("cut"), PLACE, PLACE),
    st.tuples(st.just("again"), PLACE, PLACE),
    st.tuples(st.just("flip"), PLACE, st.integers(1, 255)),
)
CHANGES = st.lists(CHANGE, max_size=6)


def changed(data, changes):
    """Apply changes to bytes."""
    for what, place, by in changes:
        at = int(place * len(data))
        if what == "put":
            data = data[:at] + by + data[at:]
        elif what == "flip":
            data = data[:at] + bytes([data[at] ^ by]) + data[at + 1 :] if at < len(data) else data
        else:
            to = int(by * len(data))
            low, high = min(at, to), max(at, to)
            data = data[:low] + data[high:] if what == "cut" else data[:high] + data[low:high] + data[high:]
    return data


NAMES = st.one_of(
    st.sampled_from([
        "train.txt", "TRAIN.TXT", "test", "val", "dev.csv", "contest.txt", "train_and_test.txt", "._train.txt", "__MACOSX", "Thumbs.db",
        "README.md", "train", "training", "alice", "a.jsonl", "train.jsonl.gz", "x.parquet", "desktop.ini", "train.pdf", "~$train.csv",
    ]),
    st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=12),
    st.binary(min_size=1, max_size=8).map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"_").decode("utf-8", "surrogateescape")),
).filter(lambda name: name not in (".", ".."))  # fmt: skip
PATHS = st.lists(st.lists(NAMES, min_size=1, max_size=3), min_size=1, max_size=6)


JSON_LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 2**70), st.floats(allow_nan=False), st.text(max_size=6),
    st.just([]), st.just({}), st.sampled_from(["<unk>", "", "BPE", "Unigram", "WordPiece", "ByteLevel", "Metaspace", "Sequence", "Split"]),
)  # fmt: skip


def places_in(value, path=()):
    """Every path of keys and numbers into a JSON value."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in parts:
        yield from places_in(inner, (*path, key))


def replaced(value, path, leaf):
    """Put another value at a path; `...` removes it."""
    if not path:
        return leaf
    copy = dict(value) if isinstance(value, dict) else list(value)
    if len(path) == 1 and leaf is ...:
        del copy[path[0]]
    else:
        copy[path[0]] = replaced(value[path[0]], path[1:], leaf)
    return copy
