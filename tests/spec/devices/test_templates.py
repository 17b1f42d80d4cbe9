"""Schemas of tables: every template passes its own check and can be drawn from, and beside every error stands what is usual."""

from __future__ import annotations

import csv
import io

import pytest
from typer.testing import CliRunner

import hetero_profiles
from fedsim.cli.app import app
from fedsim.config.experiment import Experiment
from fedsim.config.population import PopulationConfig
from fedsim.devices.population import draw
from fedsim.devices.schemas.template import NAMES, template
from fedsim.devices.schemas.versions import shipped, versions
from fedsim.devices.table_checks import KINDS, check, kind_of
from fedsim.errors import ProfileError
from fedsim.files.user_tables import read_rows
from fedsim.records.resolved import tables_of

SCHEMAS = {kind.name: kind for kind in KINDS}
RUNNER = CliRunner()


def written(tmp_path, name, text=None):
    path = tmp_path / f"{name}.csv"
    path.write_text(template(name) if text is None else text)
    return path


def broken(tmp_path, name, column, value):
    """A template whose first row has another value in one column (None: it has not the column)."""
    comments = [line for line in template(name).splitlines() if line.startswith("#")]
    lines = [line for line in template(name).splitlines() if not line.startswith("#")]
    table = list(csv.DictReader(lines))
    if value is None:
        table = [{key: cell for key, cell in row.items() if key != column} for row in table]
    else:
        table[0][column] = value
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    return written(tmp_path, name, "\n".join(comments) + "\n" + text.getvalue())


@pytest.mark.parametrize("name", NAMES)
def test_a_template_passes_its_own_check_and_is_told_for_what_it_is(tmp_path, name):
    path = written(tmp_path, name)
    assert check(path) == []
    assert kind_of(read_rows(path)).name == name


@pytest.mark.parametrize("name", NAMES)
def test_a_template_says_what_every_column_means(name):
    text = template(name)
    key = next(line for line in text.splitlines() if line.startswith("# goes to ")).split()[3].rstrip(",")
    block, _, field = key.partition(".")
    assert field in Experiment.model_fields[block].annotation.model_fields
    for column in SCHEMAS[name].columns:
        assert column.meaning
        assert f"# column {column.described}" in text


def test_own_tables_begun_from_templates_can_be_drawn_from(tmp_path):
    paths = {
        name: written(tmp_path, name) for name in ("devices", "hardware", "networks", "windows", "rates")
    }
    for name in ("devices", "hardware"):
        config = PopulationConfig(
            devices=paths[name],
            networks=paths["networks"],
            clients=400,
            availability=str(paths["windows"]),
            rates={"mobile": str(paths["rates"]), "wifi": "generated"},
            rates_at_end="loop",
        )
        population = draw(config, 0)
        assert set(population.device) == {"my-phone", "my-laptop"}
        assert set(population.network) == {"home", "mobile"}
        assert all(population.rates(client, "down") is not None for client in range(20))


BROKEN = [
    ("devices", "ram_gb", "8 GB", "ram_gb: memory of the device [10^9 bytes], for example 8"),
    ("devices", "train_w", "-1", "train_w: of the whole device while training"),
    ("devices", "class", "phone", "class: kind of device"),
    ("devices", "eff_lora_gflop_per_s", "", "3 to 50 of phones"),
    ("devices", "battery_wh", None, "12 to 20 of phones, 0: on the mains"),
    ("devices", "share", "-3", "share: how often the row occurs"),
    ("devices", "eff_lora_hi_gflop_per_s", "1", "eff_lora_hi_gflop_per_s: p95 of it"),
    ("networks", "down_mbps", "0", "world medians of 2025: mobile 91, fixed 98"),
    ("networks", "up_mbps", "fast", "0.05 of the download on 5G in the USA"),
    ("networks", "access", "lte", "access: cellular is for phones only"),
    ("networks", "rtt_ms", None, "rtt_ms: median round trip; 10 of fibre, 50 of LTE [ms]"),
    ("networks", "down_up_correlation", "2", "0.5 to 0.8 was measured"),
    ("networks", "outage_mean_s", "0", "outage_mean_s: mean length of an outage"),
    ("networks", "packet_bytes", "1.5", "1500, or 1514 with an Ethernet or Wi-Fi header"),
    ("windows", "stop_s", "1", "stop_s: when it closes"),
    ("windows", "client", "0.5", "client: whose window it is"),
    ("rates", "time_s", "5", "time_s: from 0, ascending"),
    ("rates", "down_mbps", "-1", "down_mbps: rate of downloads until the next row"),
    ("hardware", "os", "dos", "os: its operating system"),
    ("hardware", "memory_bandwidth_gb_per_s", "x", "15 of slow phones"),
    ("hardware", "cpu_gflop_per_s", "0", "20 to 170 of phones"),
    ("hardware", "cpu_gflop_per_s", "1e300", "cpu_gflop_per_s: a large float32 product on all cores"),
    ("hardware", "cpu_gflop_per_s", "1e-9", "cpu_gflop_per_s: a large float32 product on all cores"),
    ("hardware", "cpu_gflop_per_s", "1_097", "cpu_gflop_per_s: a large float32 product on all cores"),
    ("hardware", "cpu_gflop_per_s", "\u0669\u0667", "cpu_gflop_per_s: a large float32 product on all cores"),
    ("hardware", "ram_gb", "1e30", "ram_gb: memory of the device"),
    ("networks", "down_mbps", "1e99", "down_mbps: median rate of downloads"),
    ("networks", "tail_w", None, "tail_w: its power then"),
    ("networks", "tail_s", None, "tail_s: how long the radio stays up"),
    ("windows", "stop_s", "86_400", "stop_s: when it closes"),
    ("stacks", "share_of_peak", "1e-12", "0.03 of plain C++"),
    ("stacks", "most_tokens", "2", "most_tokens: most of them"),
    ("stacks", "memory", "pytorch-flaot32", "memory: what it keeps in memory"),
    ("hardware", "stack", "cpp, mesp 0.5", "stack: what its owner runs"),
    ("hardware", "share", "1e-300", "share: how often the row occurs"),
    ("hardware", "ram_bandwidth_gb_per_s", "51.2", "peak of the RAM beside a card"),
    ("stacks", "stack", "auto", "stack: name of the row"),
    ("hardware", "cpu_quota", "half", "cpu_quota: share of a CPU that the device is"),
    ("hardware", "cpu_quota", "0", "cpu_quota: share of a CPU that the device is"),
    ("hardware", "cpu_quota", "50", "cpu_quota: share of a CPU that the device is"),
    ("hardware", "cpu_period_ms", "", "cpu_period_ms: how often that share is given out"),
    ("speeds", "tokens_per_s", "0", "tokens_per_s: measured, while training [1/s], for example 3.0"),
    ("stacks", "share_of_peak", "3", "0.03 of plain C++"),
    ("stacks", "stack", "my stack", "stack: "),
    ("stacks", "peak", "tpu", "peak: which of a device's peaks it uses"),
    ("regions", "share", "0.8", "share: how much of it that part is"),
]


@pytest.mark.parametrize("name", NAMES)
def test_a_template_names_every_column_that_its_table_may_have(name):
    for column in SCHEMAS[name].optional:
        assert f"# may have {column.described}" in template(
            name
        ) or f"# column {column.described}" in template(name)
        assert column.meaning


NEARLY = [
    ("hardware", "cpu_gflop_per_s", "CPU_gflop_per_s"),
    ("hardware", "cpu_gflop_per_s", "cpu gflop per s"),
    ("networks", "tail_s", "tail"),
    ("networks", "tail_w", "tail_W"),
    ("networks", "outage_share", "outage_shares"),
    ("stacks", "memory", "memroy"),
    ("rates", "up_mbps", "up_mpbs"),
]


@pytest.mark.parametrize(("name", "column", "typed"), NEARLY)
def test_a_column_that_looks_like_one_that_is_not_there_is_not_read_past(tmp_path, name, column, typed):
    """Without the word, a card would get the RAM, a radio no tail and a link its constant rate."""
    text = template(name)
    head = next(line for line in text.splitlines() if not line.startswith("#"))
    path = written(tmp_path, name, text.replace(head, head.replace(column, typed)))
    said = [problem for problem in check(path) if f": {typed}: is read by nobody" in problem]
    assert f"looks like {column}, which is not there" in said[0]


def test_notes_of_people_are_theirs(tmp_path):
    """Text is no figure, whatever its column is called; and figures of other names are left alone."""
    text = template("networks").splitlines()
    at = next(k for k, line in enumerate(text) if not line.startswith("#"))
    more = ["hop,tail_kind,loss_percent,name", "none,assumed,1,Home", "none,assumed,2,Mobile"]
    text[at:] = [f"{line},{cells}" for line, cells in zip(text[at:], more, strict=True)]
    assert check(written(tmp_path, "networks", "\n".join(text))) == []


@pytest.mark.parametrize(("name", "column", "value", "explained"), BROKEN)
def test_beside_every_error_stands_what_the_column_means_and_what_is_usual(
    tmp_path, name, column, value, explained
):
    problems = check(broken(tmp_path, name, column, value))
    about = [problem for problem in problems if f": {column}: " in problem.splitlines()[0]]
    assert about, problems
    assert all(explained in problem.splitlines()[1] for problem in about)


@pytest.mark.parametrize(
    ("column", "value", "explained"),
    [
        ("weight_bytes", "16", "a frozen weight; 4, 2, 1, or 0.55 of 4 bits [bytes]"),
        ("tokens_per_s", "fast", "3 of plain C++ on a phone"),
        ("quality", "good", "quality: how it was read"),
    ],
)
def test_measurements_that_a_stranger_sends_are_explained_too(tmp_path, column, value, explained):
    lines = hetero_profiles.locate("measurements/public.csv").read_text("utf-8").splitlines()
    table = list(csv.DictReader(line for line in lines if not line.startswith("#")))[:1]
    table[0][column] = value
    text = io.StringIO()
    writer = csv.DictWriter(text, list(table[0]))
    writer.writeheader()
    writer.writerows(table)
    problems = check(written(tmp_path, "measured", text.getvalue()))
    assert any(f": {column}: " in problem and explained in problem for problem in problems), problems


def test_there_is_a_template_of_every_kind_that_people_write_by_hand():
    assert set(NAMES) == set(SCHEMAS) - {"measurements", "memory limits", "memory models"}


def test_a_file_of_no_kind_is_pointed_to_the_templates(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,2\n")
    assert "fedsim profiles new" in check(tmp_path / "x.csv")[0]


def test_the_readme_of_the_tables_explains_every_column():
    readme = hetero_profiles.locate("devices.csv").with_name("README.md").read_text("utf-8")
    for name in NAMES:
        for column in SCHEMAS[name].columns:
            assert f"`{column.name}`" in readme, (name, column.name)


# the command -------------------------------------------------------------------------------------


def test_new_prints_a_template_or_writes_one_and_never_replaces_a_file(tmp_path):
    assert RUNNER.invoke(app, ["profiles", "new", "networks"]).stdout == template("networks")
    out = tmp_path / "mine.csv"
    assert RUNNER.invoke(app, ["profiles", "new", "hardware", "--out", str(out)]).exit_code == 0
    assert out.read_text() == template("hardware")
    out.write_text("mine")
    assert RUNNER.invoke(app, ["profiles", "new", "hardware", "--out", str(out)]).exit_code != 0
    assert out.read_text() == "mine"


def test_an_unknown_kind_is_said_with_the_nearest():
    with pytest.raises(ProfileError, match="there is no template of that name") as caught:
        template("device")
    assert "did you mean 'devices'?" in str(caught.value)


def test_show_says_who_runs_what_and_which_tables_it_is_from():
    shown = RUNNER.invoke(app, ["profiles", "show", "world_2026"]).stdout
    for said in (
        "ios, phones",
        "macos",
        "devices devices_2026.csv (2026, sha256 ",
        "regions regions_2026.csv",
    ):
        assert said in shown


def test_show_of_an_experiment_says_when_devices_are_online(tmp_path):
    (tmp_path / "e.yaml").write_text(
        "population: {preset: europe_2026, clients: 300, availability: eligible}\n"
        "task: {kind: quadratic}\nlocal: {steps: 1, lr: 0.1}\n"
        "protocol: {kind: synchronous, cohort: 5}\nbudget: {commits: 1}\n"
    )
    result = RUNNER.invoke(app, ["profiles", "show", str(tmp_path / "e.yaml")])
    assert "online by hour of the day" in result.stdout, result.output
    assert "people people.yaml (2026, sha256 " in result.stdout


# versions ----------------------------------------------------------------------------------------


def test_every_table_of_the_package_has_a_year_and_a_state():
    tables = {name for name in hetero_profiles.names() if not name.startswith("presets/")}
    assert set(shipped()) == tables - {"versions.yaml"}
    assert shipped()["devices.csv"].state == "frozen"


def test_a_run_says_name_year_and_digest_of_its_tables():
    config = PopulationConfig(preset="india_2026", clients=3, availability="charging")
    tables = {table.role: table for table in tables_of(draw(config, 0).sources)}
    assert {role: (table.name, table.year) for role, table in tables.items()} == {
        "devices": ("devices_2026.csv", "2026"),
        "networks": ("networks_2026.csv", "2026"),
        "regions": ("regions_2026.csv", "2026"),
        "stacks": ("stacks.csv", "2026"),
        "availability": ("charging", "2025"),
    }
    assert all(len(table.sha256) == 64 for table in tables.values())
    assert versions({"devices": "mine.csv"}) == {}


def test_own_tables_have_a_digest_and_no_year(tmp_path):
    paths = {name: written(tmp_path, name) for name in ("devices", "networks")}
    tables = tables_of(draw(PopulationConfig(**paths, clients=2), 0).sources)
    assert [str(table)[:28] for table in tables] == [
        "devices devices.csv (sha256 ",
        "networks networks.csv (sha25",
    ]


def test_a_table_is_no_preset_and_who_shows_one_is_pointed_to_its_check():
    answer = RUNNER.invoke(app, ["profiles", "show", "mine.csv"])

    assert isinstance(answer.exception, ProfileError)
    assert "mine.csv: is a table, and no preset" in str(answer.exception)
