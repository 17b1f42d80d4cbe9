"""The report is one file that needs no network, says what was run, and is sane for any run."""

from __future__ import annotations

import errno
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from plotly.offline import get_plotlyjs
from worlds.small_runs import EXPERIMENT, INFO, small, without_rows

from fedsim import report
from fedsim.config.experiment import Experiment
from fedsim.errors import HostError, RunFolderError
from fedsim.records import quantities
from fedsim.records.info import RunInfo
from fedsim.records.run import Run
from fedsim.report import page
from fedsim.report.several import labels

VOID = {"meta", "link", "br", "hr", "img", "input", "col", "wbr"}
SINGLE = (
    "How good the model became",
    "What was run",
    "Who took part",
    "Who did what when",
    "The devices",
    "Who was lost, and why",
    "How stale the updates were",
    "Where a visit's time goes",
    "Where virtual time went",
    "How fairly clients took part",
    "What was uploaded, against full-model FedAvg",
    "What was spent in vain",
    "What a personal copy gains",
    "Configuration",
)
SEVERAL = (
    "Which is better, and by how much",
    "What is compared",
    "Who was lost, and what was spent in vain",
    "Uploads and personal gains",
    "Configuration",
)


class Document(HTMLParser):
    """Reads a page: headings, text, ids, tables, what it would load, and whether its tags are closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.loads: list[str] = []
        self.headings: list[str] = []
        self.ids: list[str] = []
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self.words: list[str] = []
        self.links: list[str] = []
        self.feed(html)
        self.close()
        self.wrong += self.open
        self.text = re.sub(r"\s+", " ", " ".join(self.words).replace("\u00a0", " "))

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if "id" in found:
            self.ids.append(found["id"])
        if tag == "a":
            self.links.append(found["href"])
        else:
            self.loads += [v for k, v in attrs if k in ("src", "href", "srcset", "data", "action")]
        if tag in ("h1", "h2"):
            self.headings.append("")

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(f"/{tag}")

    def handle_data(self, data):
        if not self.open:
            return
        if self.open[-1] == "script":
            self.scripts.append(data)
        elif self.open[-1] == "style":
            self.styles.append(data)
        else:
            self.words.append(data)
            if self.open[-1] in ("h1", "h2"):
                self.headings[-1] += data


def read(tmp_path, *runs: Run, whole: bool = False) -> Document:
    """Write and read a report; without Plotly's own 5 MB, which take a second to parse, unless `whole`."""
    html = report.write(runs, tmp_path / "report.html").read_text(encoding="utf-8")
    return Document(html if whole else html.replace(get_plotlyjs(), ""))


@pytest.fixture(scope="module")
def html(tmp_path_factory) -> str:
    """The report of the small run, as it is written."""
    path = tmp_path_factory.mktemp("report") / "report.html"
    return report.write([small()], path).read_bytes().decode()


@pytest.fixture(scope="module")
def document(html) -> Document:
    """The report of the small run."""
    return Document(html.replace(get_plotlyjs(), ""))


def renamed(name: str, run: Run | None = None, seed: int = 0, **changes) -> Run:
    run = run or small()
    plain = Experiment.model_validate({**EXPERIMENT.plain(), "name": name, "seed": seed, **changes}).plain()
    frames = {t: getattr(run, t) for t in ("clients", "visits", "commits", "scores", "personal")}
    return Run(folder=None, experiment=plain, info=replace(run.info, name=name, seed=seed), **frames)


SYNC = {"kind": "synchronous", "cohort": 3}


def figures(document: Document) -> list[list[dict]]:
    """The traces of every figure in a page."""
    found = []
    for script in document.scripts:
        if script.startswith('{"data":'):
            found.append(json.loads(script)["data"])
    return found


def test_a_report_of_one_run_has_every_section(document):
    assert document.headings == ["small", *SINGLE]


def test_a_report_of_several_runs_is_one_comparison(tmp_path):
    document = read(tmp_path, renamed("a"), renamed("b", protocol=SYNC))

    assert document.headings == ["2 runs compared", *SEVERAL]


@pytest.mark.parametrize("runs", [1, 2])
def test_a_report_is_well_formed_and_needs_no_network(tmp_path, runs):
    document = read(tmp_path, *[renamed(f"run{i}") for i in range(runs)], whole=True)
    page_links = [link for link in document.links if not link.startswith("#")]

    assert document.wrong == []
    assert document.loads == []
    assert page_links == []
    assert not re.search(r"@import|url\(", "".join(document.styles))
    assert len(document.ids) == len(set(document.ids))
    assert {link[1:] for link in document.links} <= set(document.ids)


def test_plotly_is_inside_exactly_once(html):
    assert len(re.findall(r"\* plotly\.js v\d", html)) == 1
    assert "cdn.plot.ly/plotly" not in html
    assert 3e6 < len(html) < 8e6


def test_equal_runs_give_equal_bytes(html, tmp_path):
    assert report.write([small()], tmp_path / "b.html").read_bytes() == html.encode()


def test_the_page_says_what_was_run(document):
    text = document.text

    assert "4 of preset homogeneous; availability: always" in text
    assert "buffered: concurrency 3, buffer 2" in text
    assert "fedit" in text
    assert "LoRA adapters of rank 8, alpha 16, on all-linear: 10 of 1,000 parameters" in text
    assert "30 s of virtual time" in text
    assert "Inline, 1 worker; 1.50 s of real time; started 2026-01-02 03:04 UTC" in text
    assert "9f9f9f9f9f9f9f9f…" in text


def test_the_verdict_is_in_the_cards():
    cards = {card.label: card for card in page.cards(small())}

    assert cards["perplexity"].value == "40 → 25"
    assert cards["virtual time"].value == "30 s"
    assert cards["virtual time"].note == "2 commits, 7 visits"
    assert cards["uploaded"].value == "170 B"
    assert cards["uploaded"].note == "99.0 % less than full-model FedAvg"
    assert cards["of visits were lost"].value == "42.9 %"  # three of seven
    assert cards["of clients are in the model"].value == "50.0 %"  # clients 0 and 3 of four
    assert cards["energy of the devices"].note == "50.0 % of it in vain"
    assert cards["of training saved"].value == "42.9 %"
    assert cards["personal gain in perplexity"].value == "+1"
    assert cards["personal gain in perplexity"].note == "mean over 4 clients; 25.0 % got worse"


def test_the_numbers_in_words_and_tables_are_those_of_the_run(document):
    text = document.text

    assert (
        "Test perplexity fell from 40 to 25 in 16 s of virtual time, 2 commits and 120 B of uploads." in text
    )
    assert "20 (version 1)" in text  # the best score, not the last
    assert "4 of 7 visits landed. 3 (42.9 %) were lost" in text
    assert "1 went offline, 1 out of memory and 1 after the deadline" in text
    assert "A committed update was 0.333 commits old on average, 1 at most; 66.7 % were fresh." in text
    assert "full-model FedAvg: 4 · 1,000 · 4 = 16 kB" in text
    assert "this run, N_LoRA: 4 · 10 · 4 = 160 B" in text
    assert "99.0 %" in text
    assert "Uploads that did not land took another 10 B." in text
    assert "170 B (170 B)" in text  # uploaded, charged
    assert "20 B (20 B)" in text  # uploaded, really serialised
    assert "4 clients gained 1 in perplexity on average (median 1); 25.0 % got worse." in text


def test_charge_as_cannot_be_missed(tmp_path, document):
    charged = replace(INFO.charged, declared=True, model="gemma-3-270m", params=268_098_176)
    text = read(tmp_path, small(info=replace(INFO, charged=charged))).text

    assert "Charged as another model" in text
    assert "charged as for gemma-3-270m (268,098,176 parameters)" in text
    assert (
        "every update counts 40 B on the virtual links, while 4 B of tensors were really serialised" in text
    )
    assert "Charged as another model" not in document.text


def test_curves_are_drawn_in_the_units_of_their_axes(tmp_path):
    hours = small()
    scores, commits = hours.scores.copy(), hours.commits.copy()
    scores["time_s"] *= 3600.0
    commits["time_s"] *= 3600.0
    commits["total_up_bytes"] *= 10**8
    document = read(tmp_path, small(scores=scores, commits=commits))
    by_time, by_commits, by_bytes = (t for t in figures(document)[0] if t["name"] == "test")

    assert by_time["x"] == [0.0, 4.0, 16.0]
    assert by_commits["x"] == [0.0, 1.0, 2.0]
    assert by_bytes["x"] == [0.0, 4.0, 12.0]
    assert by_time["y"] == [40.0, 20.0, 25.0]
    html = "".join(document.scripts)
    assert "virtual time [h]" in html
    assert "uploaded [GB]" in html


def test_gains_below_zero_never_share_a_bar_with_gains_above(document):
    worse, better = figures(document)[-1][:2]

    assert sum(worse["y"]) == 1
    assert sum(better["y"]) == 3
    assert all(x < 0 for x in worse["x"])
    assert all(x > 0 for x in better["x"])


def test_gains_are_told_by_part_by_tier_and_beside_training_alone(document):
    assert "After fine-tuning on their own data, 4 clients gained 1 in perplexity on average" in document.text
    assert "held out 1 0 0 0 0 0 0 0 %" in document.text
    assert "tier slow 3 0.333 -1 -0.800 0 1.60 2 33.3 %" in document.text
    assert "alone 10.5 10.5 50.0 %" in document.text
    boxes = figures(document)[-1][2:]
    assert [(box["name"], sorted(box["x"])) for box in boxes] == [
        ("slow", [-1.0, 2.0]), ("fast", [3.0]), ("held out", [0.0])
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (("scores",), "No model was scored."),
        pytest.param(
            ("personal",), "Clients kept no copies of their own in this run.", marks=pytest.mark.slow
        ),
        pytest.param(
            ("visits", "commits", "scores", "personal"), "No visit was dispatched.", marks=pytest.mark.slow
        ),
        (("clients", "visits", "commits", "scores", "personal"), "The run ended before it had clients."),
    ],
)
def test_what_a_run_does_not_have_is_said_in_words(tmp_path, missing, says):
    document = read(tmp_path, without_rows(*missing))

    assert document.headings == ["small", *SINGLE]
    assert document.wrong == []
    assert says in document.text
    assert "nan" not in document.text.lower().split()


def test_a_run_without_a_commit_or_with_a_single_visit_gives_a_page(tmp_path):
    run = small()
    none = run.visits.assign(committed_version=-1, staleness=-1)
    uncommitted = small(visits=none, commits=run.commits.iloc[:0], scores=run.scores.iloc[:3])
    single = small(visits=run.visits.iloc[:1], commits=run.commits.iloc[:1], scores=run.scores.iloc[:6])

    document = read(tmp_path, uncommitted)
    assert "Test perplexity is 40; it was scored once." in document.text
    assert "No update was committed." in document.text
    assert "All 1 committed updates were fresh" in read(tmp_path, single).text


def test_a_timeline_only_run_is_announced_as_such(tmp_path):
    bare = without_rows("scores", "personal")
    text = read(
        tmp_path, small(scores=bare.scores, personal=bare.personal, info=replace(INFO, timeline_only=True))
    ).text

    assert "Nothing was trained" in text
    assert "7 visits and 2 commits in 30 s of virtual time." in text
    assert "of training saved" not in text


@pytest.mark.parametrize(
    ("status", "reason", "says"),
    [
        ("failed", "nobody came online", "The run failed: nobody came online"),
        pytest.param("interrupted", "", "The run was interrupted.", marks=pytest.mark.slow),
        ("killed", "", "The run was killed"),
        pytest.param("running", "", "still going", marks=pytest.mark.slow),
    ],
)
def test_a_run_that_did_not_finish_says_so_first(tmp_path, status, reason, says):
    info = RunInfo(name="small", status=status, seed=0, digest="", reason=reason)
    document = read(tmp_path, small(info=info))

    assert says in document.text
    assert document.text.index(says) < document.text.index("What was run")
    assert "does not say which model was charged" in document.text


def test_names_from_tables_cannot_break_the_page(tmp_path):
    nasty = "</script><b>&"
    clients = small().clients.assign(tier=[nasty, nasty, nasty, "fast"], device=nasty)
    document = read(tmp_path, small(clients=clients))

    assert document.wrong == []
    assert nasty in document.text


def shifted(by: float) -> Run:
    """The run of `small` with every score but those of version 0 worse by a number."""
    scores = small().scores.copy()
    scores.loc[scores["version"] > 0, "value"] += by
    return small(scores=scores)


def test_of_one_seed_a_difference_is_told_without_an_interval(tmp_path):
    text = read(tmp_path, renamed("slow", shifted(1.0), protocol=SYNC), renamed("quick")).text

    assert "quick - slow: -1 in test perplexity after 30 s, of one pair of seeds (n = 1)" in text
    assert "protocol.kind synchronous buffered" in text


def test_of_few_seeds_the_interval_is_students_and_may_show_no_difference(tmp_path):
    runs = [
        *(renamed("a", shifted(by), seed=seed, protocol=SYNC) for seed, by in enumerate((1.0, 3.0))),
        *(renamed("b", seed=seed) for seed in range(2)),
    ]
    document = read(tmp_path, *runs)

    assert labels.compared(runs).groups == [0, 0, 1, 1]
    # differences -1 and -3: mean -2, standard error 1, t of one degree of freedom 12.706
    assert (
        "No difference is shown between b and a in test perplexity after 30 s: -2 (95 % interval -14.7 to +10.7, "
        "n = 2 pairs of seeds)." in document.text
    )
    assert "27 ± 1.4 (n = 2)" in document.text  # 26 and 28: standard deviation sqrt(2)


def test_of_five_seeds_alike_a_difference_is_shown(tmp_path):
    runs = [
        *(renamed("a", shifted(2.0 + 0.1 * seed), seed=seed, protocol=SYNC) for seed in range(5)),
        *(renamed("b", seed=seed) for seed in range(5)),
    ]

    told = re.search(
        r"b is better than a after 30 s: test perplexity -2.20 "
        r"\(95 % interval (-2\.\d+) to (-2\.\d+|-2), n = 5 pairs of seeds\)",
        read(tmp_path, *runs).text,
    )
    low, high = map(float, told.groups())
    assert -2.4 <= low <= -2.36  # nearly the range, as Student's interval: -2.396 to -2.004
    assert -2.04 <= high <= -2.0


def test_a_pair_without_a_score_leaves_the_difference_open(tmp_path):
    only_first = small(scores=small().scores.query("version == 0"))
    runs = [
        *(renamed("a", seed=seed, protocol=SYNC) for seed in range(3)),
        *(renamed("b", only_first if seed == 2 else None, seed=seed) for seed in range(3)),
    ]
    text = read(tmp_path, *runs).text

    assert "b and a are not compared after 30 s: 1 of 3 pairs of seeds lacks a scored version." in text
    assert "– (1 of 3 not scored)" in text


def test_configurations_without_a_seed_in_common_have_no_pairs(tmp_path):
    text = read(tmp_path, renamed("a", protocol=SYNC), renamed("b", seed=1)).text

    assert "b and a have no seed in common" in text


def test_a_sweep_of_two_seeds_is_compared_by_configuration(tmp_path):
    runs = [
        renamed(f"grid.protocol-{name}_seed-{seed}", shifted(by + seed), seed=seed, **blocks)
        for name, blocks, by in (("buffered", {}, 0.0), ("synchronous", {"protocol": SYNC}, 4.0))
        for seed in (0, 1)
    ]
    compared = labels.compared(runs)
    document = read(tmp_path, *runs)

    assert compared.names == ["protocol-buffered", "protocol-synchronous"]
    assert compared.labels == [f"{name}, seed {seed}" for name in compared.names for seed in (0, 1)]
    # 4 in both pairs: the seeds move both alike
    assert (
        "protocol-synchronous is worse than protocol-buffered after 30 s: test perplexity +4 (95 % interval +4 to +4, n = 2"
        in document.text
    )
    assert "times sooner" not in document.text
    assert "mean of 3 seeds" not in document.text
    names = {trace["name"] for trace in figures(document)[0] if trace.get("showlegend", True)}
    assert names == set(compared.names)  # one line a configuration, and its band


def test_a_target_that_was_declared_counts_runs_that_never_reached_it(tmp_path):
    declared = {"evaluate": {"targets": [20.0]}}
    runs = [
        *(
            renamed("a", shifted(by), seed=seed, protocol=SYNC, **declared)
            for seed, by in enumerate((0.0, 1.0))
        ),
        *(renamed("b", seed=seed, **declared) for seed in range(2)),
    ]
    text = read(tmp_path, *runs).text

    assert "Declared target: test perplexity of 20 or better" in text
    assert "a 2 runs, 1 reached it 17 s" in text  # of 4 s and, not reached, all of 30 s
    assert "not reached > 30 s" in text
    assert "chosen afterwards" not in text


def test_a_target_that_nobody_declared_is_called_chosen_afterwards(tmp_path):
    runs = [renamed("a", protocol=SYNC), renamed("b")]
    text = report.write(runs, tmp_path / "asked.html", targets=[22.0]).read_text(encoding="utf-8")

    assert "Target chosen afterwards, the best value that every run reached" in read(tmp_path, *runs).text
    assert "Declared target: test perplexity of 22 or better" in text
    assert "chosen afterwards" not in text


def test_the_page_of_one_run_has_its_targets_and_those_that_are_asked_for(tmp_path):
    declared = renamed("a", evaluate={"targets": [20.0, 2.0]})
    text = read(tmp_path, declared).text
    page = report.write([renamed("a")], tmp_path / "asked.html", targets=[22.0])

    reached = "declared target reached after commits uploaded energy 20 4 s 1 40 B 1 J"
    assert f"{reached} 2 not in 30 s – – –" in text
    assert "declared target" in page.read_text(encoding="utf-8")
    plain = read(tmp_path, renamed("a")).text
    assert "declared target" not in plain
    assert "chosen afterwards" not in plain


def test_a_run_that_uploads_nothing_does_not_make_every_budget_nothing(tmp_path):
    alone = small(visits=small().visits.assign(up_bytes=0), commits=small().commits.assign(total_up_bytes=0))
    text = read(tmp_path, renamed("a"), renamed("b", alone, protocol=SYNC)).text

    assert "configuration at 30 s at 170 B up at 8 J a 25 25 25 b 25 – 25" in text


def test_long_names_wrap_and_are_short_in_the_legend(tmp_path):
    long = (
        "a-name-that-goes-on-and-on-and-on-for-a-hundred-characters-or-so-and-then-on-and-on-and-on-for-ever"
    )
    unbroken = "name" * 15
    runs = [renamed(long), renamed(unbroken, protocol=SYNC)]
    html = report.write(runs, tmp_path / "r.html").read_text(encoding="utf-8")
    document = Document(html.replace(get_plotlyjs(), ""))

    assert max(len(trace["name"]) for trace in figures(document)[0]) <= 44
    assert f'<th scope="row" class="long">{unbroken}' in html
    assert re.search(r"th\.long \{[^}]*overflow-wrap: anywhere", html)
    assert f'<th scope="row">{long}' in html  # it may be broken at its hyphens
    assert not re.search(r"th \{[^}]*nowrap", html)


@pytest.mark.parametrize(
    ("runs", "names"),
    [
        ([renamed("a"), renamed("b", protocol=SYNC)], ["a", "b"]),
        ([renamed("a"), renamed("a", seed=1)], ["a, seed 0", "a, seed 1"]),
        ([renamed("a"), renamed("a", protocol=SYNC)], None),
        ([renamed("a"), renamed("b", seed=1)], ["a", "b"]),
        ([renamed("run-1"), renamed("run-2", seed=1)], ["run, seed 0", "run, seed 1"]),
        ([renamed("a"), renamed("a")], ["a, seed 0", "a, seed 0 #2"]),
        (
            [renamed("a", seeds={"training": 4}), renamed("a", seeds={"training": 5})],
            ["a, seed 0/0/4", "a, seed 0/0/5"],
        ),
    ],
)
def test_labels_tell_runs_apart(runs, names):
    found = labels.compared(runs).labels

    assert len(set(found)) == len(runs)
    if names is None:  # one name for two configurations: named by what differs
        assert found[0].startswith("buffered")
        assert found[1].startswith("synchronous")
    else:
        assert found == names


def test_a_run_without_scores_is_left_out_of_the_curves_only(tmp_path):
    bare = without_rows("scores")
    document = read(tmp_path, renamed("a"), renamed("b", bare), renamed("c", protocol=SYNC))

    assert "1 run without this metric is not drawn." in document.text
    curves, endings = figures(document)
    assert {trace["name"] for trace in curves} == {"a", "c"}
    assert [len(trace["y"]) for trace in endings] == [3] * 4  # landed, offline, memory, late of three runs


def test_two_runs_without_any_score_compare_by_their_costs(tmp_path):
    bare = without_rows("scores")

    assert "None of the runs scored a model." in read(tmp_path, renamed("a", bare), renamed("b", bare)).text


def test_a_report_of_nothing_or_to_nowhere_is_refused(tmp_path):
    with pytest.raises(RunFolderError, match="at least one run"):
        report.write([], tmp_path / "report.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFolderError, match="cannot be written"):
        report.write([small()], tmp_path / "file" / "report.html")


def test_a_page_for_which_the_disk_has_no_room_is_a_fault_of_the_machine(tmp_path, monkeypatch):
    def full(path, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("fedsim.report.page.write_atomically", full)
    with pytest.raises(HostError, match="the disk takes no more") as caught:
        report.write([small()], tmp_path / "report.html")
    assert "the tables are whole without the page" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("time_s", 119.0, "119 s"),
        ("time_s", 120.0, "2 min"),
        ("time_s", 7200.0, "2 h"),
        ("time_s", 172_800.0, "2 days"),
        ("time_s", float("nan"), "–"),
        ("bytes", 0, "0 B"),
        ("bytes", 1_179_648, "1.18 MB"),
        ("joules", 999, "999 J"),
        ("joules", 1500, "1.50 kJ"),
    ],
)
def test_quantities_are_said_in_the_unit_that_suits_them(kind, value, words):
    assert quantities.said(kind, value) == words


def test_seeds_that_vary_apart_are_said_by_what_they_draw(tmp_path):
    text = read(tmp_path, *(renamed("a", seeds={"training": k}) for k in (4, 5))).text

    assert "seeds (population/data/training) 0/0/4, 0/0/5" in text
    assert "2 runs of one configuration: test perplexity 25 ± 0 (n = 2) after 30 s." in text
