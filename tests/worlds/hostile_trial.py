"""Tries commands on many hostile folders, and says which were not refused in a sentence or right."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from worlds import hostile

SLOW_S = 30.0
"""Seconds that one command may take here, where several things run at once."""
PEAK_BYTES = 3 * 2**30
SEALED = re.compile(r"(clients|visits|commits|scores|personal)\.parquet|experiment\.yaml|wall\.jsonl")


@dataclass
class Trial:
    """What became of one folder: what was changed, and what each command said."""

    what: str
    file: str
    results: list[dict]
    problems: list[str]


@contextmanager
def commands(sound, place):
    """A process that takes folders and commands, one line each."""
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("HF_", "FEDSIM_"))
    }
    environment |= {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    script = Path(__file__).with_name("hostile_commands.py")
    process = subprocess.Popen(
        [sys.executable, str(script), str(sound / "done"), str(place / "warm.html")],
        env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=place,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.stdin.close()
        process.kill()
        process.wait()


def trials(sound, place, numbers, names=("report", "status", "verify", "timeline", "resume")):
    """Make the folders of these numbers, one after the other, and yield what the commands made of each.

    Args:
        sound: where `hostile.made` has put its folders.
        place: an empty folder, in which all happens.
        numbers: of mutants.
        names: of commands.
    """
    with commands(sound, place) as process:
        for number in numbers:
            here = place / "here"
            shutil.rmtree(here, ignore_errors=True)
            here.mkdir()
            folder, what, file = hostile.mutant(sound, here, number)
            around = outside(here)
            asked = [[name, str(folder), *more(name)] for name in names]
            process.stdin.write(json.dumps({"folder": str(folder), "commands": asked}) + "\n")
            process.stdin.flush()
            began_s = time.perf_counter()
            line = process.stdout.readline()
            if not line:
                yield Trial(
                    what, file, [], [f"the process ended after {time.perf_counter() - began_s:.1f} s"]
                )
                return
            answer = json.loads(line)
            yield Trial(what, file, answer["results"], [*wrong(answer, what, file), *touched(here, around)])


def more(name):
    """What a command is given besides."""
    return {"replay": ["--client", "1"], "report": [], "timeline": []}.get(name, [])


def outside(here):
    """What lies around the folder: name -> what it is and holds."""
    found = {}
    for path in sorted((here / "outside").rglob("*")):
        found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "folder"
    return found | {str(path): "beside" for path in here.iterdir()}


def touched(here, around):
    """What was changed around the folder; a trace of code that ran lies there, too."""
    now = outside(here)
    return [f"{path} changed" for path in sorted({*now, *around}) if now.get(path) != around.get(path)]


def wrong(answer, what, file):
    """What is wrong with the answers to one folder."""
    for result in answer["results"]:
        name, code, said = result["command"], result["code"], result["err"]
        if (code == 3 and "memory" in said and file == "experiment.yaml") or endless(result, what, file):
            continue  # settings may ask for anything
        if code not in (0, 1, 2):
            yield f"{name} gave {code}: {said:.300}"
        if (code in (1, 2) and name != "verify") or code == 2:
            yield from no_sentence(name, said)
        if "unexpected" in said or "Traceback" in said:
            yield f"{name} said ...{said[-400:]}"
        if result["seen"]:
            yield f"{name} did {result['seen'][:5]}"
        if result["seconds"] > SLOW_S:
            yield f"{name} took {result['seconds']:.1f} s"
        if hostile.SECRET in result["out"] + said:
            yield f"{name} told the secret"
        if not (result["out"] + said).replace("\n", "").isprintable():
            yield f"{name} printed what cannot be seen"
        if name == "verify" and code == 0 and SEALED.fullmatch(file) and unsound(what):
            yield f"verify found nothing: {result['out']:.200}"
    if answer["peak_bytes"] > PEAK_BYTES:
        yield f"memory rose to {answer['peak_bytes'] / 2**30:.1f} GiB"


def endless(result, what, file):
    """Whether a command took its time because settings ask for a longer run."""
    return (
        result["code"] == "TimeoutError: it took too long"
        and result["command"] == "resume"
        and file == "experiment.yaml"
    )


def unsound(what):
    """Whether a change to a sealed file of a finished run must be found: a file swapped with itself is as it was."""
    return " done " in what and not re.search(r"swapped (\S+) with \S*\1$|kinds|linked", what)


def no_sentence(name, said):
    """A refusal is lines that begin with `error:` and say where and what, each perhaps with a way out."""
    lines = said.splitlines()
    if not any(line.startswith("error: ") for line in lines):
        yield f"{name} said nothing: {said:.300}"
    for line in lines:
        if len(line) > 2500:
            yield f"{name} said too much: {line:.100}"


def page_of(folder):
    """The page that a report has left, if any."""
    page = folder / "report.html"
    return page.read_text() if page.is_file() and not page.is_symlink() else ""
