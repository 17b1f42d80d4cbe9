"""Every block and command on every page is right: run, or read by what would read it; what is not run says why."""

from __future__ import annotations

import json
import re
import shlex

import jsonschema
import pytest
from worlds import page_checks as checks
from worlds.page_runs import ELSEWHERE, NOT_PLAYED, PLAYED, PLAYED_SLOWLY, excuse, play, units
from worlds.pages import LANGUAGES, ROOT, blocks, commands, every, lines_of, pages, spans, write_files

import fedsim
from fedsim.config.experiment import Experiment
from fedsim.config.reference.schema import json_schema
from fedsim.files import yaml_file

WITH_BLOCKS = [page for page in pages() if blocks(page)]
OF_EXPERIMENTS = [page for page in WITH_BLOCKS if page.startswith("experiments/")]
OUTSIDE = {
    "ray": "tests/slow/test_pages_played.py has them parsed by Ray",
    "docker": "is not there in CI",
}
"""Programs of others that pages name, and who knows them."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder a page with the files that it shows; modules of all pages can be imported."""
    home, shared = tmp_path_factory.mktemp("pages"), tmp_path_factory.mktemp("modules")
    made = {page: home / page.replace("/", "_") for page in WITH_BLOCKS}
    for page, folder in made.items():
        folder.mkdir()
        write_files(page, folder)
        write_files(page, shared)
    from worlds.page_runs import importable

    with importable(shared):
        yield made


@pytest.fixture(scope="module")
def validator():
    """The schema that `fedsim schema` writes for editors."""
    return jsonschema.Draft202012Validator(json_schema(Experiment))


# run ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PLAYED)
def test_what_a_page_shows_runs_from_its_top_to_its_end(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = play(page, tmp_path)

    runs = [fedsim.load(path.parent) for path in tmp_path.rglob("run.json")]
    assert runs
    assert {run.info.status for run in runs} == {"done"}
    assert isinstance(names["run"], fedsim.Run)
    assert page != "docs/quickstart.md" or (tmp_path / "comparison.html").stat().st_size > 10_000


@pytest.mark.parametrize("page", WITH_BLOCKS)
def test_every_command_and_block_is_run_or_says_why_not(page):
    played = page in (*PLAYED, *PLAYED_SLOWLY, *ELSEWHERE)

    assert [
        f"{block}: {unit}" for block, unit in units(page) if not played and excuse(page, unit) is None
    ] == []


def test_every_how_to_is_played_but_the_one_that_needs_a_gpu():
    how_to = {page for page in WITH_BLOCKS if page.startswith("docs/how_to/")}

    assert how_to - {*PLAYED, *PLAYED_SLOWLY} == {"docs/how_to/gpu.md"}


def test_reasons_are_of_something_that_is_there():
    used = {excuse(page, unit) for page in WITH_BLOCKS for _, unit in units(page)}

    assert {(page, begin) for page, begins in NOT_PLAYED.items() for begin in begins} - used == set()
    assert {*PLAYED, *PLAYED_SLOWLY, *ELSEWHERE} <= set(WITH_BLOCKS)
    reasons = " ".join(reason for begins in NOT_PLAYED.values() for reason in begins.values())
    named = set(re.findall(r"(?:tests|docs)/[\w./]*\w", reasons))
    assert [file for file in sorted({*named, *ELSEWHERE.values()}) if not (ROOT / file).exists()] == []


# read --------------------------------------------------------------------------------------------


def test_blocks_are_of_known_languages_and_what_is_printed_hides_no_code():
    found = [block for page in pages() for block in blocks(page)]

    assert [str(block) for block in found if block.language not in LANGUAGES] == []
    assert [str(block) for block in found if block.language == "console" and not lines_of(block)] == []
    hidden = rf"^(\$ |import |from \w+ import |({'|'.join(Experiment.model_fields)}):( *\{{|$))"
    assert [str(b) for b in found if b.language == "text" and re.search(hidden, b.text, re.MULTILINE)] == []


@pytest.mark.parametrize("page", [page for page in WITH_BLOCKS if page not in OF_EXPERIMENTS])
def test_commands_are_taken_by_the_programs_that_they_name(page, folders):
    look_at_commands(page, folders[page], gate=True)


@pytest.mark.parametrize("page", OF_EXPERIMENTS)
def test_commands_of_experiments_are_taken_by_the_programs_that_they_name(page, folders):
    look_at_commands(page, folders[page], gate=False)


def look_at_commands(page, folder, *, gate):
    """Hold every command of a page against its program."""
    for block in blocks(page):
        for line in lines_of(block) if block.language == "console" else ():
            for words in commands(line):
                program = words[0].rpartition("/")[2]
                if program == "fedsim":
                    checks.accepted(words[1:], folder, gate=gate)
                elif program not in OUTSIDE:
                    checks.OTHERS[program](words)


def test_programs_of_others_are_named_somewhere():
    named = {words[0] for block in every("console") for line in lines_of(block) for words in commands(line)}

    assert named >= OUTSIDE.keys()


@pytest.mark.parametrize("block", every("yaml"), ids=str)
def test_yaml_passes_the_gate_and_the_schema_of_editors(block, folders, validator):
    if block.page not in ELSEWHERE:  # these import torch; they are run, and the slow suite has the rest read
        checks.yaml_accepted(block, folders[block.page])
    for text in checks.alternatives(block.text):
        shown = yaml_file.scalar(text, "")
        validator.validate(shown if checks.whole(shown) else checks.completed(shown))


@pytest.mark.parametrize(
    "page", [page for page in WITH_BLOCKS if any(b.language == "python" for b in blocks(page))]
)
def test_names_of_fedsim_in_python_exist_and_take_the_arguments_that_they_are_given(page, folders):
    names = checks.Names()
    for block in blocks(page):
        if block.language == "python":
            names = checks.names_in(block, names)

    assert names.wrong == []
    assert names.resolved or not any("fedsim" in b.text for b in blocks(page) if b.language == "python")


@pytest.mark.parametrize("block", every("json"), ids=str)
def test_json_is_json(block):
    assert json.loads(block.text)


OLD = {"CHANGELOG.md", "DESIGN.md"}
"""They speak of what was."""
NO_KEYS = {"server.vector", "personal.parquet", "key.path"}
"""What has the form of a key, and is none."""


@pytest.mark.parametrize("page", [page for page in pages() if page not in OLD])
def test_keys_and_options_that_are_named_in_prose_exist(page):
    wrong = []
    for span in spans(page):
        settings = re.findall(r"-s '?([\w.]+)=", span)
        key = re.fullmatch(r"([a-z_]+(?:\.[a-z_]+)+)(?:[:=] ?.*)?", span)
        named = [*settings, *([key[1]] if key and key[1].split(".")[0] in Experiment.model_fields else [])]
        wrong += [k for k in named if not checks.is_key(k) and k not in NO_KEYS]
        wrong += [key for key in checks.unknown_keys(span) if key != "aggregator.kind: my-rule"]
        if span.startswith("fedsim "):
            try:
                words = shlex.split(span)[1:]
            except ValueError:
                continue  # a quotation that ends in the next span
            wrong += [f"{span}: {word}" for word in checks.unknown_options(words)]

    assert wrong == []


# the checks themselves ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "line",
    [
        "fedsim runn my.yaml",
        "fedsim run my.yaml --outt x",
        "fedsim run my.yaml -s protocol.bufer=3",
        "fedsim run",
        "fedsim explain protocol.bufer",
        "fedsim run experiments/ptb/nothing.yaml",
        "fedsim run experiments/ptb/sync.yaml -s lora.r=-1",
        "make nothing",
        "pip install 'fedsim-edge[nothing]'",
        "pytest tests/nothing",
        "python scripts/nothing.py",
        "python scripts/shakespeare.py --nothing 1",
    ],
)
def test_a_wrong_command_is_seen(line, tmp_path):
    (words,) = commands(line)
    with pytest.raises(BaseException) as caught:  # typer's usage errors have no common public base
        if words[0] == "fedsim":
            checks.accepted(words[1:], tmp_path)
        else:
            checks.OTHERS[words[0]](words)
    assert not isinstance(caught.value, KeyError | NameError | TypeError | KeyboardInterrupt)


def test_a_wrong_key_in_a_sentence_is_seen():
    assert checks.unknown_keys("protocol: {kind: buffered, buffer: 3}") == []
    assert checks.unknown_keys("protocol: {kind: buffered, cohort: 3}") == ["protocol.cohort"]
    assert checks.unknown_keys("protocol: {kind: bufered}") == ["protocol.kind: bufered"]
    assert checks.unknown_keys("population: {clints: 3}") == ["population.clints"]
    assert checks.unknown_options(["run", "my.yaml", "--dry-run"]) == []
    assert checks.unknown_options(["run", "my.yaml", "--dryrun"]) == ["--dryrun"]
    assert checks.unknown_options(["profiles", "shw"]) == ["shw"]


@pytest.mark.parametrize(
    "text",
    [
        "from fedsim import Nothing",
        "import fedsim\nfedsim.nothing",
        "import fedsim\nfedsim.load('a', nothing=1)",
        "import fedsim\nrun = fedsim.load('a')\nrun.nothing",
        "from fedsim import views\nviews.nothing",
    ],
)
def test_a_wrong_name_is_seen(text):
    from worlds.pages import Block

    assert checks.names_in(Block("page", 1, "python", text, "")).wrong


def test_loops_continued_lines_pipes_and_variables_are_commands():
    block = "$ for e in a b; do\n    fedsim run $e.yaml \\\n      -s seed=1\n  done\n$ X=1 fedsim schema 2> e > f | head\nprinted\n"
    from worlds.pages import Block

    typed = lines_of(Block("page", 1, "console", block, ""))
    assert [words for line in typed for words in commands(line)] == [
        ["fedsim", "run", "a.yaml", "-s", "seed=1"],
        ["fedsim", "run", "b.yaml", "-s", "seed=1"],
        ["fedsim", "schema"],
        ["head"],
    ]
