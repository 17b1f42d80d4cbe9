"""Broken experiments, tables and data files: each is answered with one sentence, a fix and exit code 2.

Nothing starts: no run folder is made and no worker is asked for. Every case goes through the same
`fedsim.cli.app.call` as the console script.
"""

from __future__ import annotations

import copy
import csv
import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from worlds.text_files import written

import hetero_profiles
from fedsim.builtin import model_folder
from fedsim.cli.app import call

QUADRATIC = {
    "population": {"preset": "homogeneous", "clients": 20},
    "task": {"kind": "quadratic"},
    "local": {"optimizer": "sgd"},
    "budget": {"commits": 2},
    "runtime": {"executor": "inline"},
}


@pytest.fixture(autouse=True)
def _in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(
        "fedsim.runs.simulation.executor_for", lambda _: pytest.fail("a worker was asked for")
    )


def refused(capsys, args, *expected, exit_code=2):
    """Run one command line; it must be refused with one sentence that holds `expected`, and a fix."""
    assert call(args) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line[:7] for line in lines] == ["error: ", "  fix: "], err
    assert len(lines[1]) > len("  fix: ")
    for word in expected:
        assert word in err
    assert "Traceback" not in err


def with_(changes, base=QUADRATIC):
    """Return the base with `a.b` keys set; None removes a key."""
    experiment = copy.deepcopy(base)
    for name, value in changes.items():
        *blocks, last = name.split(".")
        at = experiment
        for block in blocks:
            at = at.setdefault(block, {})
        if value is None:
            at.pop(last)
        else:
            at[last] = value
    return experiment


def test_the_experiment_that_is_broken_below_is_sound(tmp_path, capsys):
    path = written(tmp_path / "exp.yaml", QUADRATIC)
    assert call(["run", str(path), "--timeline-only"]) == 0
    assert (tmp_path / "runs" / "exp" / "visits.parquet").exists()


# the file --------------------------------------------------------------------------------------

FILES = {
    "an empty file": ("", ["exp.yaml: is empty"]),
    "comments only": ("# nothing\n", ["exp.yaml: is empty"]),
    "a list": ("- a\n- b\n", ["must be a block of keys", "['a', 'b']"]),
    "one word": ("hello\n", ["must be a block of keys", "'hello'"]),
    "a tab for an indent": ("task:\n\tkind: quadratic\n", ["line 2, column 1", "spaces, not tabs"]),
    "an open bracket": ("task: {kind: quadratic\nseed: 1\n", ["line 2", "not valid YAML"]),
    "a colon too many": ("task: kind: quadratic\n", ["line 1", "not valid YAML"]),
    "a key twice": (
        "seed: 1\ntask: {kind: quadratic}\nseed: 2\n",
        ["line 3", "'seed' is given twice", "line 1"],
    ),
    "a key twice in a block": ("lora:\n  r: 1\n  r: 2\n", ["line 3", "'lora.r' is given twice"]),
    "a number for a key": ("task: {1: 2}\n", ["a key must be a word (got 1)"]),
    "a Python object": ("task: !!python/object/apply:os.getcwd []\n", ["line 1", "tags are not supported"]),
    "two documents": ("seed: 1\n---\nseed: 2\n", ["line 2", "single document"]),
    "Latin-1 text": ("name: caf\xe9\n".encode("latin-1"), ["is not UTF-8 text (byte 9)"]),
    "three thousand brackets": ("task: " + "[" * 3000, ["nested deeper than 50", "check brackets"]),
    "a block in itself": ("task: &a {kind: *a}\n", ["or one contains itself", "aliases"]),
    "aliases of aliases": (
        "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 10)),
        ["holds more than 100,000 values", "write the values themselves"],
    ),
    "a control character": (b"name: a\x07b\n", ["not valid YAML", "control characters"]),
    "a base that is not there": ("extends: base.yaml\n", ["extends: base.yaml: no such file", "'exp.yaml'"]),
    "a base that is a number": ("extends: 3\n", ["extends: must be a file name (got 3)"]),
    "a base that is itself": ("extends: exp.yaml\n", ["exp.yaml extends another file itself"]),
}


@pytest.mark.parametrize("case", FILES)
def test_a_broken_file_is_refused(case, tmp_path, capsys):
    content, expected = FILES[case]
    refused(capsys, ["run", str(written(tmp_path / "exp.yaml", content))], "exp.yaml", *expected)
    assert [p.name for p in tmp_path.iterdir()] == ["exp.yaml"]


def test_a_file_that_is_not_there_names_its_neighbour(tmp_path, capsys):
    written(tmp_path / "sync.yaml", QUADRATIC)
    refused(capsys, ["run", "snyc.yaml"], "snyc.yaml: no such file", "did you mean 'sync.yaml'?")
    refused(capsys, ["run", "nowhere/sync.yaml"], "no such file", "there is no folder 'nowhere'")
    refused(capsys, ["run", str(tmp_path)], "is a folder, not a YAML file")


# fields ----------------------------------------------------------------------------------------

FIELDS = {
    "no task": ({"task": None}, ["task: is required", "task: {kind: language}"]),
    "no population": ({"population": None}, ["population: is required", "mixed_edge_2025"]),
    "no budget": ({"budget": None}, ["budget: is required"]),
    "a budget without a limit": ({"budget": {}}, ["budget: has no limit", "time_s, commits, up_bytes"]),
    "an infinite budget": (
        {"budget.time_s": float("inf")},
        ["budget.time_s: must be a finite number (got inf)"],
    ),
    "an unknown block": ({"lorra": {"r": 1}}, ["lorra: no such key (got {'r': 1})", "'lora'"]),
    "an unknown key": ({"local.learning_rate": 1}, ["local.learning_rate: no such key (got 1)", "lr"]),
    "an unknown key in a kind": (
        {"protocol": {"kind": "synchronous", "buffer": 2}},
        ["protocol.buffer: no such key"],
    ),
    "an unknown key, deep": (
        {"aggregator": {"kind": "fedit", "staleness": {"kind": "polynomial", "b": 2}}},
        ["aggregator.staleness.b: no such key (got 2)", "a, kind"],
    ),
    "a key of another block": ({"cohort": 3}, ["cohort: no such key (got 3)", "'protocol.cohort'"]),
    "text for a number": ({"seed": "abc"}, ["seed: must be a whole number (got 'abc')"]),
    "a fraction for a count": (
        {"population.clients": 2.5},
        ["population.clients: must be a whole number (got 2.5)"],
    ),
    "true for a number": ({"lora.r": True}, ["lora.r: must be a number (got True)"]),
    "text for a switch": ({"lora.full": "perhaps"}, ["lora.full: must be true or false (got 'perhaps')"]),
    "a number for a name": ({"name": 5}, ["name: must be text (got 5)"]),
    "a path for a name": ({"name": "../x"}, ["name: must be letters, digits", "'../x'"]),
    "a list for a number": ({"local.lr": [1e-3]}, ["local.lr: must be a number (got [0.001])"]),
    "a word for a block": ({"lora": "rank 8"}, ["lora: must be a block of keys (got 'rank 8')"]),
    "no clients": ({"population.clients": 0}, ["population.clients: must be at least 1 (got 0)"]),
    "a negative rate": (
        {"network.server_up_mbps": -5},
        ["network.server_up_mbps: must be greater than 0 (got -5)"],
    ),
    "a rate of zero": ({"network.server_down_mbps": 0}, ["server_down_mbps: must be greater than 0 (got 0)"]),
    "a negative seed": ({"seed": -1}, ["seed: must be at least 0 (got -1)"]),
    "a learning rate of NaN": ({"local.lr": float("nan")}, ["local.lr: must be a finite number (got nan)"]),
    "a momentum of one": ({"local.momentum": 1}, ["local.momentum: must be less than 1 (got 1)"]),
    "epochs and steps": ({"local": {"epochs": 1, "steps": 5}}, ["local: has both `epochs` and `steps`"]),
    "an unknown optimizer": (
        {"local.optimizer": "adamv"},
        ["local.optimizer", "'adamv'", "did you mean 'adamw'?"],
    ),
    "an unknown number format": (
        {"wire.dtype": "float8"},
        ["wire.dtype: must be 'float32', 'bfloat16', 'int8' or 'int4' (got 'float8')"],
    ),
    "an unknown executor": ({"runtime.executor": "dask"}, ["runtime.executor: must be 'ray' or 'inline'"]),
    "an unknown split": (
        {"evaluate.splits": ["tset"]},
        ["evaluate.splits.0", "'tset'", "did you mean 'test'?"],
    ),
    "no client batch": ({"numerics.client_batch": 0}, ["must be at least 1 or 'auto' (got 0)"]),
    "an unknown task": ({"task.kind": "languge"}, ["task.kind: no such kind (got 'languge')", "'language'"]),
    "a task without a kind": ({"task": {}}, ["task: needs `kind:`", "language"]),
    "a kind that is a number": ({"task.kind": 7}, ["task.kind: must be text (got 7)"]),
    "an unknown protocol": ({"protocol.kind": "bufered"}, ["protocol.kind: no such kind", "'buffered'"]),
    "an unknown aggregator": ({"aggregator.kind": "fedti"}, ["aggregator.kind: no such kind", "fedit"]),
    "an unknown sampler": (
        {"sampler.kind": "uniforn"},
        ["sampler.kind: no such kind", "did you mean 'uniform'?"],
    ),
    "an unknown discount": (
        {"aggregator": {"kind": "fedit", "staleness": {"kind": "hing"}}},
        ["aggregator.staleness.kind: no such kind (got 'hing')", "did you mean 'hinge'?"],
    ),
    "a module that is not there": (
        {"task.kind": "no_such_pkg.x:Y"},
        ["task.kind: there is no module", "no_such_pkg"],
    ),
    "a class that is no component": ({"task.kind": "json:JSONDecoder"}, ["task.kind: must be a subclass"]),
    "over-selection below one": (
        {"protocol": {"kind": "synchronous", "over_select": 0.5}},
        ["protocol.over_select: must be at least 1 (got 0.5)"],
    ),
    "neither preset nor devices": (
        {"population.preset": None},
        ["population: has neither `preset` nor `devices`"],
    ),
    "preset and devices": ({"population.devices": "d.csv"}, ["population: has both `preset` and `devices`"]),
    "a grid in a run": ({"sweep": {"seed": [0, 1]}}, ["sweep: is for `fedsim sweep` only", "fedsim sweep "]),
    # what does not fit together
    "a cohort larger than the population": (
        {"protocol": {"kind": "synchronous", "cohort": 21}},
        ["protocol.cohort: asks more clients than there are (20) (got 21)"],
    ),
    "over-selection beyond the population": (
        {"protocol": {"kind": "synchronous", "cohort": 15, "over_select": 1.5}},
        ["protocol.over_select: asks 23 clients for a cohort of 15, and there are 20 (got 1.5)"],
    ),
    "more reports than the cohort": (
        {"protocol": {"kind": "synchronous", "cohort": 5, "min_reports": 6}},
        ["min_reports", "6", "cohort", "5"],
    ),
    "more slots than clients": (
        {"protocol": {"kind": "buffered", "concurrency": 25}},
        ["protocol.concurrency: keeps more clients at work than there are (20) (got 25)"],
    ),
    "a rank for a full model": (
        {"lora": {"full": True, "r": 4}},
        ["lora.r: has no meaning with full: true (got 4)"],
    ),
    "momentum for adamw": (
        {"local": {"momentum": 0.9}},
        ["local.momentum: has no effect with adamw (got 0.9)"],
    ),
    "more personal copies than clients": (
        {"personal": {"kind": "fine-tune", "clients": 21}},
        ["personal.clients: is more than there are (20) (got 21)"],
    ),
    "an unknown preset": (
        {"population.preset": "mixed_edge"},
        ["population.preset: no such preset", "did you mean 'mixed_edge_2026'?"],
    ),
    "a misspelt generator": (
        {"population.availability": "chargin"},
        ["availability", "did you mean 'charging'?"],
    ),
    "windows that are not there": (
        {"population.availability": "./w.csv"},
        ["no such file", "w.csv", "always, charging"],
    ),
}


@pytest.mark.parametrize("case", FIELDS)
def test_a_broken_experiment_is_refused(case, tmp_path, capsys):
    changes, expected = FIELDS[case]
    refused(capsys, ["run", str(written(tmp_path / "exp.yaml", with_(changes)))], "exp.yaml: ", *expected)
    assert [p.name for p in tmp_path.iterdir()] == ["exp.yaml"]


# tables ----------------------------------------------------------------------------------------


def rows_of(name):
    lines = hetero_profiles.locate(name).read_text().splitlines()
    header, *rows = list(csv.reader(line for line in lines if line and not line.startswith("#")))
    plain = [i for i, column in enumerate(header) if not column.startswith("share_") and column != "source"]
    return [*(header[i] for i in plain), "share"], [
        [*(row[i] for i in plain), "1"] for row in (*rows[:2], rows[-1])
    ]


def edited(name, column=None, value=None, *, row=1, drop=None, twice=False):
    """Return a table of ours, three rows of it, with one thing broken."""
    header, rows = rows_of(name)
    if column is not None:
        rows[row][header.index(column)] = value
    if twice:
        rows.append(rows[0])
    lines = [header, *rows]
    if drop is not None:
        at = header.index(drop)
        lines = [line[:at] + line[at + 1 :] for line in lines]
    text = io.StringIO()
    csv.writer(text).writerows(lines)
    return text.getvalue()


WINDOWS = "client,start_s,stop_s\n0,0,100\n0,200,300\n1,50,80\n"

TABLES = {
    "devices: no such file": ("devices", None, ["devices.csv", "no such file"]),
    "devices: an empty file": ("devices", "", ["devices.csv"]),
    "devices: no rows": ("devices", ",".join(rows_of("devices.csv")[0]) + "\n", ["devices.csv"]),
    "devices: a column is missing": ("devices", edited("devices.csv", drop="ram_gb"), ["ram_gb"]),
    "devices: a negative speed": (
        "devices",
        edited("devices.csv", "eff_lora_lo_gflop_per_s", "-1"),
        ["eff_lora_lo_gflop_per_s", "-1"],
    ),
    "devices: NaN": ("devices", edited("devices.csv", "ram_gb", "nan"), ["ram_gb", "nan"]),
    "devices: an empty cell": ("devices", edited("devices.csv", "train_w", ""), ["train_w"]),
    "devices: text for a number": ("devices", edited("devices.csv", "ram_gb", "lots"), ["ram_gb", "lots"]),
    "devices: an unknown class": ("devices", edited("devices.csv", "class", "toaster"), ["class", "toaster"]),
    "devices: a device twice": (
        "devices",
        edited("devices.csv", twice=True),
        [rows_of("devices.csv")[1][0][0]],
    ),
    "networks: a column is missing": ("networks", edited("networks.csv", drop="rtt_ms"), ["rtt_ms"]),
    "networks: a rate of zero": ("networks", edited("networks.csv", "up_mbps", "0"), ["up_mbps", "0"]),
    "networks: an impossible correlation": (
        "networks",
        edited("networks.csv", "down_up_correlation", "1.5"),
        ["down_up_correlation", "1.5"],
    ),
    "windows: overlapping": ("windows", WINDOWS + "0,90,120\n", ["overlap"]),
    "windows: ending before they start": ("windows", WINDOWS + "2,90,20\n", ["stop_s"]),
    "windows: a column is missing": ("windows", "client,start_s\n0,1\n", ["stop_s"]),
    "windows: a negative time": ("windows", WINDOWS.replace("50", "-50"), ["start_s", "-50"]),
    "windows: NaN": ("windows", WINDOWS.replace("300", "nan"), ["stop_s", "nan"]),
}


def with_table(tmp_path, kind, content):
    """Return an experiment over good tables of which one is replaced."""
    if kind == "windows":
        written(tmp_path / "windows.csv", content)
        return with_({"population.availability": "windows.csv"})
    for name in ("devices", "networks"):
        text = edited(f"{name}.csv") if name != kind else content
        if text is not None:
            written(tmp_path / f"{name}.csv", text)
    return with_({"population": {"devices": "devices.csv", "networks": "networks.csv", "clients": 20}})


def test_the_tables_that_are_broken_below_are_sound(tmp_path, capsys):
    path = written(tmp_path / "exp.yaml", with_table(tmp_path, "devices", edited("devices.csv")))
    assert call(["run", str(path), "--timeline-only"]) == 0
    path = written(tmp_path / "exp.yaml", with_table(tmp_path, "windows", WINDOWS))
    assert call(["run", str(path), "--timeline-only", "-s", "budget={time_s: 2}"]) == 0


@pytest.mark.parametrize("case", TABLES)
def test_a_broken_table_is_refused(case, tmp_path, capsys):
    kind, content, expected = TABLES[case]
    path = written(tmp_path / "exp.yaml", with_table(tmp_path, kind, content))
    refused(capsys, ["run", str(path)], f"{kind}.csv", *expected)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("case", [case for case, (_, content, _) in TABLES.items() if content is not None])
def test_the_checker_of_tables_finds_it_too(case, tmp_path, capsys):
    kind, content, expected = TABLES[case]
    path = written(tmp_path / f"{kind}.csv", content)
    refused(capsys, ["profiles", "check", str(path)], f"{kind}.csv", *expected)


# data and models -------------------------------------------------------------------------------

WORDS = np.array(list("abcdefghijklmnopqrstuvwxyz"))


def prose(lines=300, seed=0):
    rng = np.random.default_rng(seed)
    return "\n".join(" ".join(rng.choice(WORDS, 12)) for _ in range(lines)) + "\n"


def parquet(path, **columns):
    pq.write_table(pa.table(columns), path)


LANGUAGE = QUADRATIC | {
    "population": {"preset": "homogeneous", "clients": 4},
    "protocol": {"kind": "synchronous", "cohort": 2},
    "task": {"kind": "language", "data": "notes.txt", "partition": {"kind": "iid"}},
}


def _table_without_text(folder):
    parquet(folder / "notes.parquet", words=["a b c"] * 50, user=["x", "y"] * 25)


def _table_with_clients(folder):
    users = [f"u{i % 4}" for i in range(200)]
    parquet(folder / "notes.parquet", text=prose(200).splitlines(), user=users)


def _table_with_a_nameless_client(folder):
    users = [f"u{i % 4}" if i != 17 else None for i in range(200)]
    parquet(folder / "notes.parquet", text=prose(200).splitlines(), user=users)


def _table_of_one_client(folder):
    parquet(folder / "notes.parquet", text=prose(200).splitlines(), user=["u0"] * 200)


def _model_without_weights(folder):
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_bytes((model_folder() / "config.json").read_bytes())


def _model_with_a_broken_configuration(folder):
    (folder / "model").mkdir()
    (folder / "model" / "config.json").write_text('{"model_type": ')


NATURAL = {"task.data": "notes.parquet", "task.text_column": "text", "task.partition": {"kind": "natural"}}

DATA = {
    "a file that is not there": (
        None,
        {"task.data": "./gone.txt"},
        ["task.data: no such file or folder", "gone.txt"],
    ),
    "an empty file": (lambda f: (f / "notes.txt").write_text(""), {}, ["notes.txt"]),
    "a file of blanks": (lambda f: (f / "notes.txt").write_text("\n \n\n"), {}, ["notes.txt"]),
    "a file that is not text": (
        lambda f: (f / "notes.txt").write_bytes(bytes(range(128, 256)) * 40),
        {},
        ["notes.txt"],
    ),
    "too little text for its clients": (
        lambda f: (f / "notes.txt").write_text("a few words"),
        {},
        ["notes.txt", "too short"],
    ),
    "a suffix that is not read": (
        lambda f: (f / "notes.docx").write_text(prose()),
        {"task.data": "notes.docx"},
        ["notes.docx"],
    ),
    "an empty folder": (lambda f: (f / "corpus").mkdir(), {"task.data": "corpus"}, ["corpus"]),
    "a table without the text column": (
        _table_without_text,
        {"task.data": "notes.parquet", "task.text_column": "text"},
        ["text", "words"],
    ),
    "a file that is no table": (
        lambda f: (f / "notes.parquet").write_text("no parquet"),
        {"task.data": "notes.parquet"},
        ["notes.parquet"],
    ),
    "a client column that is not there": (
        _table_with_clients,
        NATURAL | {"task.client_column": "person"},
        ["person", "user"],
    ),
    "a row without a client": (
        _table_with_a_nameless_client,
        NATURAL | {"task.client_column": "user"},
        ["task.client_column", "row 18"],
    ),
    "one natural client only": (
        _table_of_one_client,
        NATURAL | {"task.client_column": "user"},
        ["task.partition", "at least two owners"],
    ),
    "more clients than pieces of text": (
        lambda f: (f / "notes.txt").write_text(prose(20)),
        {"population.clients": 2000},
        ["task", "2000"],
    ),
    "an unknown partition": (
        None,
        {"task.data": "builtin", "task.partition": {"kind": "dirichlett"}},
        ["task.partition.kind: no such kind", "'dirichlet'"],
    ),
    "a concentration of zero": (
        None,
        {"task.data": "builtin", "task.partition": {"kind": "dirichlet", "alpha": 0}},
        ["task.partition.alpha: must be greater than 0 (got 0)"],
    ),
    "a sequence of no tokens": (
        None,
        {"task.data": "builtin", "task.sequence": 0},
        ["task.sequence", "(got 0)"],
    ),
    "an unknown shape to charge": (
        None,
        {"task.data": "builtin", "task.charge_as": {"preset": "nonesuch"}},
        ["task.charge_as.preset", "nonesuch", "gemma-3-270m"],
    ),
    "a model folder without config.json": (
        lambda f: (f / "model").mkdir(),
        {"task.data": "builtin", "task.model": "model"},
        ["task.model: is no model folder", "config.json"],
    ),
    "a model whose configuration is broken": (
        _model_with_a_broken_configuration,
        {"task.data": "builtin", "task.model": "model"},
        ["task.model", "configuration"],
    ),
    "a model folder without a tokenizer": (
        _model_without_weights,
        {"task.data": "builtin", "task.model": "model"},
        ["model"],
    ),
    "targets that the model does not have": (
        None,
        {"task.data": "builtin", "lora.targets": ["c_attn"]},
        ["c_attn", "q_proj"],
    ),
    "a model on the hub, offline": (
        None,
        {"task.data": "builtin", "task.model": "nobody/no-such-model"},
        ["nobody/no-such-model"],
    ),
    "data on the hub, offline": (None, {"task.data": "nobody/no-such-text"}, ["nobody/no-such-text"]),
    "a name that is no hub id": (
        None,
        {"task.data": "a/b/c"},
        ["task.data: is neither an existing path nor a hub id"],
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_broken_data_or_models_are_refused(case, tmp_path, capsys):
    make, changes, expected = DATA[case]
    if make is not None:
        make(tmp_path)
    path = written(tmp_path / "exp.yaml", with_(changes, LANGUAGE))
    refused(capsys, ["run", str(path)], "exp.yaml: ", *expected)
    assert not (tmp_path / "runs").exists()


# the command line ------------------------------------------------------------------------------

USAGE = {
    "an unknown command": (["rum"], ["No such command 'rum'"]),
    "an unknown option": (["run", "exp.yaml", "--outt", "x"], ["--outt"]),
    "no experiment": (["run"], ["EXP.yaml", "fedsim run --help"]),
    "an override without a value": (
        ["run", "exp.yaml", "-s", "seed"],
        ["-s: must be key.path=value (got 'seed')"],
    ),
    "an override without a key": (["run", "exp.yaml", "-s", "=1"], ["-s: must be key.path=value (got '=1')"]),
    "an override that is not YAML": (
        ["run", "exp.yaml", "-s", "seed=[1"],
        ["-s seed: line 1", "not valid YAML"],
    ),
    "an override of an unknown path": (
        ["run", "exp.yaml", "-s", "lora.rnk=1"],
        ["lora.rnk: no such key (got 1)", "-s lora.rnk=1"],
    ),
    "an override inside a value": (
        ["run", "exp.yaml", "-s", "name.first=a"],
        ["name is one value, not a block"],
    ),
    "a wrong value in an override": (
        ["run", "exp.yaml", "-s", "seed=x"],
        ["seed: must be a whole number (got 'x')", "-s seed=x"],
    ),
    "a folder that holds a run": (
        ["run", "exp.yaml", "--out", "taken"],
        ["taken: holds a run already", "--out"],
    ),
    "a file for a run folder": (
        ["run", "exp.yaml", "--out", "exp.yaml"],
        ["exp.yaml: is a file, not a folder"],
    ),
    "a sweep without a grid": (["sweep", "exp.yaml"], ["sweep: is required", "fedsim run exp.yaml"]),
    "a report of nothing": (["report", "nothing"], ["nothing"]),
    "a report of a folder without a run": (["report", "hollow"], ["hollow"]),
    "a timeline of nothing": (["timeline", "nothing"], ["nothing"]),
    "an audit of nothing": (["verify", "nothing"], ["nothing"]),
    "a replay of nothing": (["replay", "nothing", "--client", "0"], ["nothing"]),
    "a replay without a client": (["replay", "taken"], ["--client"]),
    "a replay of a client that made no visit": (
        ["replay", "taken", "--client", "0", "--visit", "99"],
        ["client 0 has no visit 99"],
    ),
    "an unknown preset": (["profiles", "show", "mixed_edg_2025"], ["mixed_edg_2025", "mixed_edge_2025"]),
    "a table that is not there": (["profiles", "check", "nothing.csv"], ["nothing.csv"]),
}


@pytest.fixture(scope="module")
def taken(tmp_path_factory):
    folder = tmp_path_factory.mktemp("done")
    path = written(folder / "exp.yaml", with_({"name": "taken"}))
    assert call(["run", str(path), "--timeline-only", "--out", str(folder / "taken")]) == 0
    return folder / "taken"


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_refused(case, tmp_path, capsys, taken):
    args, expected = USAGE[case]
    written(tmp_path / "exp.yaml", with_({"name": "exp"}))
    (tmp_path / "taken").symlink_to(taken)
    (tmp_path / "hollow").mkdir()
    capsys.readouterr()
    refused(capsys, args, *expected)
    assert not (tmp_path / "runs").exists()


def test_there_are_more_than_forty_broken_inputs():
    assert sum(map(len, (FILES, FIELDS, TABLES, DATA))) >= 40
