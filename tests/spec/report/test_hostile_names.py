"""Whatever a client, model, class, run, component or metric is called, a page shows it and does nothing of it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from worlds.small_runs import EXPERIMENT, small

from fedsim import report
from fedsim.errors import RunFolderError
from fedsim.records.resolved import Drawn, Followed, Resolved
from fedsim.report import drawn, gallery_section

MARK = "fedsim-was-here"
NAMES = (
    f"<script>document.title='{MARK}'</script>",
    f"</script><script>document.title='{MARK}'</script>",
    f'"><img src=x onerror="document.title=\'{MARK}\'">',
    f"'><svg/onload=document.title='{MARK}'>",
    f"<a href=\"javascript:document.title='{MARK}'\">x</a>",
    f"-->]]></style></title></noscript><iframe srcdoc=\"<script>parent.document.title='{MARK}'</script>\">",
    "%{x}<b>bold</b>&lt;i&gt;${document.title}{{7*7}}",
    "red\x1b[31m\x00\u2028\u2029\u202eevil\u2066",
    "hf_" + "A1b2C3d4E5" * 3,
)


class Tags(HTMLParser):
    """What a page is made of: its elements with their attributes, its scripts and its words."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.scripts, self.words, self.open = [], [], [], ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open = tag

    def handle_endtag(self, tag):
        self.open = ""

    def handle_data(self, data):
        (self.scripts if self.open == "script" else self.words).append(data)


def called(first):
    """A run in which everything that a file can name has one of these names, beginning with the `first`."""
    run = small()
    n = [NAMES[(first + k) % len(NAMES)] for k in range(len(NAMES))]
    tables = {
        "clients": run.clients.assign(tier=[n[0], n[0], n[1], n[2]], device=n[3:7], network=n[4], memory_plan=n[5]),
        "scores": run.scores.assign(metric=[n[6] if m == "loss" else m for m in run.scores["metric"]]),
        "personal": run.personal.assign(metric=n[7], kind=n[8]),
    }  # fmt: skip
    resolved = Resolved((Drawn(n[0], n[4], 4),), 0.5, 0.5, (Followed(n[1], n[2], n[3]),), (n[5],))
    about = replace(run.info, name=n[8], status="failed", reason=n[7], task={n[0]: n[1], "model": n[2]}, versions={n[3]: n[4]},
                    resolved=resolved, executor=n[6])  # fmt: skip
    settings = EXPERIMENT.plain() | {"name": n[8], "aggregator": {"kind": n[0], n[1]: n[2]}}
    settings["task"] = settings["task"] | {"kind": n[3], "model": n[4]}
    return replace(small(**tables), info=about, experiment=settings)


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Pages about a run each, and one that compares two."""
    place = tmp_path_factory.mktemp("pages")
    written = [report.write([called(first)], place / f"{first}.html") for first in (0, 3, 6)]
    return [*written, report.write([called(1), called(3)], place / "two.html")]


def test_no_name_becomes_an_element_an_attribute_or_a_program(pages):
    plain = Tags(report.write([small()], pages[0].parent / "plain.html").read_text())
    usual = {tag for tag, _ in plain.elements}
    for page in pages:
        tags = Tags(page.read_text())
        programs = [attrs for tag, attrs in tags.elements if tag == "script" and "type" not in attrs]

        assert {tag for tag, _ in tags.elements} <= usual | {"thead", "th"}
        assert len(programs) == 2
        assert not [a for _, attrs in tags.elements for a in attrs if a.startswith("on")]
        assert not [a for _, attrs in tags.elements for a in attrs.values() if "script:" in (a or "")]


def test_the_policy_of_a_page_allows_its_two_scripts_and_no_others(pages):
    for page in pages:
        tags = Tags(page.read_text())
        policy = next(a["content"] for tag, a in tags.elements if tag == "meta" and "http-equiv" in a)
        programs = [text for text in tags.scripts if not text.startswith('{"data":')]
        digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in programs]

        assert re.findall(r"'sha256-([^']+)'", policy) == digests
        assert "default-src 'none'" in policy
        assert "script-src 'sha256-" in policy
        assert "unsafe-eval" not in policy


def test_the_texts_of_figures_are_words_and_no_tags_of_plotly(pages):
    """Plotly reads tags in every text and `%{...}` in some."""
    ours = {"br", "extra", "/extra"}
    for page in pages:
        for figure in map(
            json.loads, (t for t in Tags(page.read_text()).scripts if t.startswith('{"data":'))
        ):
            texts = list(texts_of(figure))
            assert [t for t in texts if not set(re.findall(r"<\s*(/?\w+)", t)) <= ours] == []
            assert [t for t in texts if "<extra>" in t and "%{x}&lt;" in t] == []


def texts_of(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from texts_of(part)


def test_names_are_shown_as_they_are_but_for_what_cannot_be_seen_and_secrets(pages):
    words = " ".join("".join(Tags(page.read_text()).words) for page in pages)

    assert [name for name in NAMES[:7] if name not in words] == []
    assert r"red\x1b[31m\x00\u2028\u2029\u202eevil\u2066" in words
    html = "".join(page.read_text() for page in pages)
    assert not re.search("[\x00\x1b\u2028\u202e]", html)
    assert "hf_A1b2" not in html


def browsed(page, tmp_path):
    """The page as a browser leaves it, and what its console says."""
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom",
               f"--user-data-dir={tmp_path}", "--enable-logging=stderr", page.as_uri()]  # fmt: skip
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    return shown.stdout, shown.stderr


NO_BROWSER = pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium here")


@NO_BROWSER
def test_a_browser_draws_the_figures_and_runs_nothing_else(pages, tmp_path):
    for page in (pages[0], pages[-1]):
        document, console = browsed(page, tmp_path)

        assert re.search(r"<title>(.*?)</title>", document)[1].endswith("fedsim report")
        assert document.count('class="main-svg"') > 5
        assert "Content Security Policy" not in console
        assert "Uncaught" not in console


@NO_BROWSER
def test_what_would_be_forgotten_to_be_escaped_is_stopped_by_the_policy(pages, tmp_path):
    html = pages[0].read_text()
    evil = tmp_path / "evil.html"
    evil.write_text(
        html.replace(
            "<body>",
            f"<body><script>document.title='{MARK}'</script><img src=x onerror=\"document.title='{MARK}'\">",
        )
    )
    document, console = browsed(evil, tmp_path)

    assert f"<title>{MARK}" not in document
    assert "Content Security Policy" in console


def test_a_gallery_shows_pictures_of_its_own_folder_only(tmp_path):
    """Else a page that is passed on would hold any file that its maker can read."""
    folder = tmp_path / "samples"
    folder.mkdir()
    (tmp_path / "secret.png").write_bytes(drawn_png := gallery_section.PNG + b"secret")
    (folder / "good.png").write_bytes(drawn_png)
    (folder / "text.png").write_text("no picture")
    (folder / "linked.png").symlink_to(tmp_path / "secret.png")
    (folder / "outside.png").symlink_to("/etc/passwd")

    def shown(name, caption="<b>"):
        (folder / "samples.json").write_text(json.dumps([{"file": name, "caption": caption}]))
        return gallery_section.pictures(tmp_path)

    assert [picture.caption for picture in shown("good.png")] == ["<b>"]
    for name in (
        "../secret.png",
        "/etc/passwd",
        "..",
        "",
        "text.png",
        "outside.png",
        "gone.png",
        "a\0b",
        "x" * 999,
        7,
        None,
    ):
        with pytest.raises(RunFolderError) as error:
            shown(name)
        assert "samples.json: is damaged" in str(error.value)
    for wrong in ("{}", "[1]", "[{}]", "[" * 9999, "\xff"):
        (folder / "samples.json").write_text(wrong, encoding="latin-1")
        with pytest.raises(RunFolderError, match="is damaged"):
            gallery_section.pictures(tmp_path)


def test_words_in_templates_of_plotly_are_no_templates():
    assert drawn.worded("%{x}<extra>&") == "%&#123;x}&lt;extra&gt;&amp;"
