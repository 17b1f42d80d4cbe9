"""Run folders as somebody would make them to do harm: one change each, drawn by a number, with traps around them."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import random
import re
import shutil
import struct
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from fedsim.config.experiment import Experiment
from fedsim.records.tables import encode
from fedsim.runs.simulation import simulate
from worlds.audited import DEADLINE
from worlds.broken_inputs import places_in, replaced
from worlds.resumed_runs import experiment_of, started

SECRET = "the-secret-that-lies-outside-5d1f"
SETTINGS = DEADLINE | {
    "population": DEADLINE["population"] | {"clients": 20},
    "protocol": {"kind": "synchronous", "cohort": 2, "over_select": 1.5, "deadline_s": 2500},
    "personal": {"kind": "fine-tune", "epochs": 1},
    "budget": {"commits": 4},
    "evaluate": {"every_commits": 2},
}
TABLES = ("clients", "visits", "commits", "scores", "personal")
DEAD = 2**22 + 1
"""A number that no process has: Linux counts to 2**22."""

CANARY = "import pathlib\npathlib.Path({trace!r}).write_text(__name__)\n\n\nclass Evil:\n    pass\n"
SHADOWS = ("canary", "kernels", "flash_attn", "datasets", "orjson", "bitsandbytes", "sage", "sitecustomize")
"""Modules that lie in a hostile folder: one that settings name, and some that libraries look for."""


class _Bomb:
    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return Path.write_text, (Path(self.trace), "unpickled")


WORDS = (
    "<script>alert(1)</script>", "</script><img src=x onerror=alert(1)>", '"><svg onload=alert(1)>', "../../../etc/passwd",
    "/etc/passwd", "\x1b[31mred\x1b]0;title\x07", "[link=http://evil]x[/link]", "\u2028\u2029\u202e", "\ud800", "a\0b", "x" * 70_000,
    "{{ 7*7 }}", "%{x}%(y)s{0}", "canary:Evil", "os:system", "fedsim.cli.app:main", "__import__('os')", "file:///etc/passwd",
    "http://127.0.0.1:9/x", "javascript:alert(1)", "NaN", "", " ", "=cmd()", "con", "~root", "$HOME", "\n\nfix: rm -rf /",
)  # fmt: skip
LEAVES = (
    None, True, False, 0, -1, 1, 2**31, 2**53, 2**63, -(2**63), 2**64, 2**200, 10**5000, 0.5, 1e308, -1e308, float("nan"), float("inf"),
    float("-inf"), 5e-324, [], {}, [[]], {"a": {"b": {}}}, [1] * 1000, {"__class__": "os.system"}, {"kind": "canary:Evil"}, *WORDS,
)  # fmt: skip
RAW_JSON = (
    b"[" * 100_000,
    b'{"a":' * 50_000,
    b"9" * 100_000,
    b"1e99999",
    b'"\\ud800"',
    b"\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b"",
    b"\0" * 4096,
)
RAW_YAML = (
    "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(f"{k}: &{k} [{','.join(['*' + p] * 9)}]\n" for p, k in zip("abcdefgh", "bcdefghi", strict=True)),
    "a: &a {x: 1}\n" + "".join(f"{k}: &{k} {{<<: [{','.join(['*' + p] * 9)}]}}\n" for p, k in zip("abcdefgh", "bcdefghi", strict=True)),
    "!!python/object/apply:os.system ['touch executed']\n", "a: !!python/name:os.system\n", "task: &t {kind: *t}\n",
    "[" * 5000, "? {a: b}\n: c\n", "---\n---\n", "a: 1\na: 2\n", "%YAML 9.9\n---\na: 1\n", "a: !!binary AAAA\n", "a: !!timestamp 2024-01-01\n",
    "a: !!set {x, y}\n", "!!omap [a: 1]\n", "a: 0x" + "f" * 9000 + "\n", "a: " + "9" * 9000 + "\n", "\ufeffa: 1\n", "a: \x07\n",
)  # fmt: skip


NODES = (
    {"known": "os"}, {"known": "layout"}, {"scalar": {"object": 0}}, {"tuple": []}, {"dict": [[1]]}, {"object": 0}, {"object": -1},
    {"object": 10**9}, {"array": "0", "writeable": 1}, {"array": "../x", "writeable": False}, {"class": ["os", "system"], "fields": ["id"]},
    {"class": ["canary", "Evil"], "fields": []}, {"class": ["fedsim.errors", "Message"], "fields": ["a", "b", 1, None, [], []]},
    {"class": ["fedsim.cli.app", "main"], "fields": []}, {"vectors": ["../../outside/secret.txt", "x", 0, 0, 0]}, {"vectors": [None] * 5},
    {"class": ["pathlib", "Path"], "fields": []}, {"object": 0, "known": "layout"},
)  # fmt: skip
"""What a checkpoint writes for values, turned against its reader."""


def other_formats(trace):
    """Bytes of files of other kinds."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../escaped", b"0" * 1_000_000)
    array = BytesIO()
    np.save(array, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return (
        b"", b"\0" * 65_536, b"\x89PNG\r\n\x1a\n" + b"\0" * 64, gzip.compress(b"0" * 10_000_000), packed.getvalue(), array.getvalue(),
        pickle.dumps(_Bomb(trace)), b"\x7fELF" + b"\0" * 256, "text".encode("utf-16"), b"<html><script>alert(1)</script>", b"PAR1PAR1",
        b"PAR1" + b"\xff" * 60 + struct.pack("<I", 2**31 - 1) + b"PAR1", struct.pack("<Q", 2**63) + b"{}", struct.pack("<Q", 10**9) + b"{" * 100,
    )  # fmt: skip


def made(place):
    """A sound run and one that was killed, as folders `done` and `killed` in a place."""
    place.mkdir(exist_ok=True)
    simulate(Experiment.model_validate(SETTINGS), out=place / "done", report=False)
    pictures = place / "done" / "samples"
    pictures.mkdir()
    shutil.copytree(place / "done", place / "killed")
    _picture(pictures)
    _kill(place / "killed")
    started(experiment_of("ditto"), place / "stopped", stop=5)
    return place


def _picture(folder):
    from PIL import Image

    Image.new("L", (8, 8)).save(folder / "real.png")
    (folder / "samples.json").write_text(json.dumps([{"file": "real.png", "caption": "Images"}]))


def _kill(folder):
    """Make of a finished run what a kill leaves: lines instead of tables, and a process that is gone."""
    for table in TABLES[1:]:
        rows = pd.read_parquet(folder / f"{table}.parquet").to_dict("records")
        (folder / f"{table}.jsonl").write_text("".join(encode(row) + "\n" for row in rows))
        (folder / f"{table}.parquet").unlink()
    info = json.loads((folder / "run.json").read_text())
    info |= {"status": "running", "pid": DEAD, "files": {}, "numbers": {}}
    (folder / "run.json").write_text(json.dumps(info))


def mutant(sound, place, number):
    """Make the hostile folder of a number in a place, and return it with what was changed, and which file.

    `place` gets `run`, and beside it `outside` with a secret; whatever runs writes `executed` there.
    """
    draw = random.Random(number)
    folder, outside = place / "run", place / "outside"
    outside.mkdir(parents=True)
    (outside / "secret.txt").write_text(f"{SECRET}\n")
    (outside / "secret.yaml").write_text(f"task: {{kind: quadratic, note: {SECRET}}}\nname: {SECRET}\n")
    base = draw.choice(["done", "killed", "stopped", "stopped"])
    shutil.copytree(sound / base, folder)
    trace = str(outside / "executed")
    for name in SHADOWS:
        (folder / f"{name}.py").write_text(CANARY.format(trace=trace))
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".py")
    path = draw.choice(files)
    kind = draw.choice(
        [
            flipped,
            cut,
            swapped,
            gone,
            replaced_whole,
            structured,
            structured,
            structured,
            structured,
            linked,
            linked,
            huge,
            kinds,
        ]
    )
    what = kind(draw, path, files, outside)
    return (
        folder,
        f"{number}: {base} {kind.__name__} {path.relative_to(folder)} {what or ''}",
        path.relative_to(folder).as_posix(),
    )


def flipped(draw, path, files, outside):
    raw = bytearray(path.read_bytes() or b"\0")
    for _ in range(draw.randint(1, 8)):
        raw[draw.randrange(len(raw))] ^= draw.randint(1, 255)
    path.write_bytes(bytes(raw))


def cut(draw, path, files, outside):
    raw = path.read_bytes()
    path.write_bytes(raw[: draw.randrange(len(raw) or 1)])


def swapped(draw, path, files, outside):
    other = draw.choice(files)
    first, second = path.read_bytes(), other.read_bytes()
    path.write_bytes(second)
    other.write_bytes(first)
    return f"with {other.name}"


def gone(draw, path, files, outside):
    path.unlink()
    if draw.random() < 0.5:
        path.mkdir()


def replaced_whole(draw, path, files, outside):
    path.write_bytes(draw.choice(other_formats(str(outside / "executed"))))


def linked(draw, path, files, outside):
    """Put a link, a pipe or a device where a file or a folder was, or in the way of one that is written."""
    targets = [
        outside / "secret.txt",
        outside / "secret.yaml",
        outside / "nothing",
        "/dev/zero",
        "/etc/passwd",
        path,
        outside,
        "/",
    ]
    target = draw.choice(targets)
    form = draw.choice(["file", "file", "pipe", "folder", "beside", "hard", "list", "more"])
    root = outside.parent / "run"
    if form == "folder":
        place = root / draw.choice(["samples", "adapter", "kept", "checkpoints"])
        shutil.rmtree(place, ignore_errors=True)
        place.symlink_to(outside if target == path else target)
    elif form == "beside":
        for number in (*range(os.getpid(), os.getpid() + 50), DEAD):
            for name in ("run.json", "visits.parquet", "report.html"):
                (root / f".{name}.{number}").symlink_to(outside / "nothing")
    elif form == "list":
        text = json.dumps(
            [
                {
                    "file": draw.choice(
                        [
                            "../../outside/secret.txt",
                            str(outside / "secret.txt"),
                            "..",
                            "real.png\0",
                            "x" * 5000,
                        ]
                    ),
                    "caption": "x",
                }
            ]
        )
        (root / "samples").mkdir(exist_ok=True)
        (root / "samples" / "samples.json").write_text(text)
    elif form == "more":
        (
            root
            / draw.choice(["report.html", "visits.jsonl", "wall.jsonl", "timeline.json", "personal.jsonl"])
        ).unlink(missing_ok=True)
        (root / "report.html").symlink_to(outside / "secret.txt")
        (root / "timeline.json").symlink_to(outside / "secret.txt")
    else:
        path.unlink()
        if form == "pipe":
            os.mkfifo(path)
        elif form == "hard":
            os.link(outside / "secret.txt", path)
        else:
            path.symlink_to(target)
    return f"{form} {target}"


def huge(draw, path, files, outside):
    """A sparse file of ten gigabytes and more."""
    with path.open("r+b") as file:
        if draw.random() < 0.5:
            file.truncate(0)
        file.truncate(draw.choice([10 * 2**30, 2**40]))


def kinds(draw, path, files, outside):
    """Settings that name code, files, hosts."""
    place = outside.parent / "run" / "experiment.yaml"
    text = place.read_text()
    block = draw.choice(["protocol", "aggregator", "sampler", "personal", "server_optimizer", "task"])
    value = draw.choice(
        [
            "canary:Evil",
            "antigravity:X",
            "this:s",
            "kernels:Evil",
            "os:system",
            "..canary:Evil",
            "canary.x:Y",
            ":",
            "canary:",
            "idlelib.idle:X",
        ]
    )
    text = re.sub(
        rf"(?m)^({block}:\n(?:  .*\n)*?  kind: ).*$", lambda found: found[1] + json.dumps(value), text
    )
    if draw.random() < 0.3:
        host = draw.choice(
            ["127.0.0.1:9", "evil.invalid:6379", "user:password@evil.invalid:1", "auto", "x" * 5000]
        )
        text = re.sub(r"(?m)^  address: .*$", lambda _: f"  address: {json.dumps(host)}", text)
    if draw.random() < 0.3:
        word = json.dumps(draw.choice(WORDS[:7]))
        text = re.sub(r"(?m)^  (preset|availability): .*$", lambda found: f"  {found[1]}: {word}", text)
    place.write_text(text)
    return f"{block} {value}"


def structured(draw, path, files, outside):
    """Change one value of what the file holds, in its own format."""
    if path.suffix == ".parquet":
        return _cells(draw, path)
    if path.suffix == ".yaml":
        return _yaml(draw, path)
    if path.suffix == ".jsonl":
        return _line(draw, path)
    if path.suffix == ".safetensors":
        return (
            _values(draw, path)
            if path.parent.name == "checkpoints" and draw.random() < 0.7
            else _header(draw, path)
        )
    if path.suffix == ".json":
        if draw.random() < 0.2:
            path.write_bytes(draw.choice(RAW_JSON))
            return "raw"
        value = json.loads(path.read_text())
        place = draw.choice([p for p in places_in(value) if p] or [()])
        leaf = draw.choice(LEAVES)
        path.write_text(_json(replaced(value, place, leaf)))
        return f"{place} {short(leaf)}"
    return flipped(draw, path, files, outside)


def short(leaf):
    """A value as it is told."""
    return "a number without end" if isinstance(leaf, int) and abs(leaf) > 10**4000 else f"{leaf!r:.60}"


def _json(value):
    """JSON, numbers of any length written out."""
    if isinstance(value, int) and abs(value) > 10**4000:
        return "1" + "0" * 5000
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(str(key))}:{_json(part)}" for key, part in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return json.dumps(value)


def _yaml(draw, path):
    import yaml

    if draw.random() < 0.3:
        text = draw.choice(RAW_YAML)
        path.write_text(text, errors="surrogatepass")
        return f"{text!r:.60}"
    value = yaml.safe_load(path.read_text())
    place = draw.choice([p for p in places_in(value) if p])
    leaf = draw.choice(LEAVES)
    path.write_text(_json(replaced(value, place, leaf)), errors="surrogatepass")  # JSON is YAML
    return f"{place} {short(leaf)}"


def _line(draw, path):
    lines = path.read_text().splitlines()
    if not lines:
        path.write_bytes(draw.choice(RAW_JSON))
        return "raw"
    at = draw.randrange(len(lines))
    row = json.loads(lines[at])
    key, leaf = draw.choice(sorted(row)), draw.choice(LEAVES)
    if draw.random() < 0.2:
        lines[at] = draw.choice(RAW_JSON).decode("latin-1")
    else:
        lines[at] = _json(
            row | {key: leaf} if draw.random() < 0.9 else {k: v for k, v in row.items() if k != key}
        )
    path.write_text("\n".join(lines) + "\n", errors="surrogatepass")
    return f"line {at} {key} {short(leaf)}"


def _header(draw, path):
    """Safetensors: a length of eight bytes, a JSON header, numbers."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    places = [p for p in places_in(header) if p]
    text = _json(replaced(header, draw.choice(places), draw.choice(LEAVES))).encode(errors="surrogatepass")
    size = draw.choice([len(text), len(text), 2**63, 2**40, 0, 100_000_001])
    path.write_bytes(_checked(draw, struct.pack("<Q", size) + text + raw[8 + length :]))
    return f"header {size}"


def _checked(draw, data):
    """Bytes whose last 32 are mostly the SHA-256 of those before, as checkpoints have it: then it is their content that counts."""
    if draw.random() < 0.2 or len(data) < 32:
        return data
    return data[:-32] + hashlib.sha256(data[:-32]).digest()


def _values(draw, path):
    """A checkpoint, of whose tree of values one is changed."""
    raw = path.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    tree = json.loads(header["__metadata__"]["fedsim"])
    place, leaf = draw.choice([p for p in places_in(tree) if p]), draw.choice((*LEAVES, *NODES))
    header["__metadata__"]["fedsim"] = _json(replaced(tree, place, leaf))
    text = json.dumps(header).encode()
    path.write_bytes(_checked(draw, struct.pack("<Q", len(text)) + text + raw[8 + length :]))
    return f"{'.'.join(map(str, place))} {short(leaf)}"


def _cells(draw, path):
    """Parquet: other cells, columns, types, and metadata that name code."""
    table = pq.read_table(path)
    name = draw.choice(table.column_names)
    at = table.column_names.index(name)
    rows = table.num_rows
    form = draw.choice(
        [
            "cell",
            "cell",
            "cell",
            "type",
            "extra",
            "less",
            "twice",
            "metadata",
            "nested",
            "bomb",
            "wide",
            "null",
        ]
    )
    if form == "cell" and rows:
        values = table[name].to_pylist()
        leaf = draw.choice([leaf for leaf in LEAVES if _fits(leaf, table.schema.field(name).type)] or [None])
        values[draw.randrange(rows)] = leaf
        table = table.set_column(at, name, pa.array(values, type=table.schema.field(name).type))
    elif form == "type":
        table = table.set_column(
            at, name, pa.array([draw.choice(WORDS[:8]).encode("utf-8", "replace")] * rows)
        )
    elif form == "extra":
        table = table.append_column("<script>", pa.array(["x"] * rows))
    elif form == "less":
        table = table.remove_column(at)
    elif form == "twice":
        table = pa.Table.from_arrays([*table.columns, table[name]], names=[*table.column_names, name])
    elif form == "metadata":
        field = table.schema.field(name).with_metadata(
            {
                "ARROW:extension:name": "arrow.py_extension_type",
                "ARROW:extension:metadata": pickle.dumps(
                    _Bomb(str(path.parent.parent / "outside" / "executed"))
                ),
            }
        )
        table = table.cast(pa.schema([field if f.name == name else f for f in table.schema]))
        table = table.replace_schema_metadata({"pandas": "{" * 5000, "PANDAS_ATTRS": '{"a": "canary:Evil"}'})
    elif form == "nested":
        table = table.set_column(at, name, pa.array([[{"a": [1]}]] * rows))
    elif form == "bomb":
        text = pa.DictionaryArray.from_arrays(
            pa.array([0] * 300_000, pa.int32()), pa.array(["y" * 1_000_000])
        )
        table = pa.table({name: text})
        pq.write_table(table, path, compression="zstd", store_schema=False)
        return "bomb"
    elif form == "wide":
        table = pa.table({f"c{k}": [1] for k in range(12_000)})
    elif form == "null":
        table = table.set_column(at, name, pa.nulls(rows, table.schema.field(name).type))
    pq.write_table(table, path, compression="zstd")
    return f"{form} {name}"


def _fits(leaf, kind):
    try:
        pa.array([leaf], type=kind)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return False
    return True
