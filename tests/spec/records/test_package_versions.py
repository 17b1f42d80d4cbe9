"""The versions that `run.json` names: of Python, of the code that runs, and of the packages that results may depend on."""

import importlib.metadata
import sys

import pytest

from fedsim.records.integrity import versions


@pytest.fixture
def installed(monkeypatch):
    """Name of a package -> its version, as the environment would have it; None: none of it."""
    known = {}
    monkeypatch.setattr(versions, "_of_loaded", versions._of_loaded.__wrapped__)

    def version(name):
        if known.get(name) is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    return known


def test_a_package_that_is_not_there_is_left_out(installed):
    installed["numpy"] = "1.2"
    assert set(versions.installed_versions()) == {"python", "fedsim-edge", "numpy"}


def test_what_is_installed_later_is_named_then(installed):
    before = versions.installed_versions()
    installed["peft"] = "0.9"
    assert "peft" not in before
    assert versions.installed_versions()["peft"] == "0.9"


def test_what_is_loaded_is_looked_up_once():
    looked = []
    of = importlib.metadata.version
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importlib.metadata, "version", lambda name: looked.append(name) or of(name))
        for _ in range(2):
            versions.installed_versions()
    loaded = {name for name in looked if name in sys.modules}
    assert all(looked.count(name) <= 1 for name in loaded)


def test_an_answer_may_be_changed():
    versions.installed_versions().clear()
    assert versions.installed_versions()["python"]
