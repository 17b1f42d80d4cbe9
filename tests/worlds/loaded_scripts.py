"""Scripts that lie in no package, as modules for as long as a test needs them."""

from __future__ import annotations

import importlib.util
import sys
from contextlib import contextmanager

import pytest


@contextmanager
def loaded_script(path, name):
    """A script as a module of that name; nobody knows the module afterwards."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    try:
        spec.loader.exec_module(module)
        yield module
    finally:
        del sys.modules[spec.name]


def fixture_of(path, name):
    """A fixture of a test module: a script, loaded once for all its tests."""

    @pytest.fixture(scope="module")
    def script():
        with loaded_script(path, name) as module:
            yield module

    return script
