"""What the tests of training share: the tiny models by name, and torch on one thread."""

from __future__ import annotations

import pytest
import torch


@pytest.fixture(params=["llama", "gpt2"])
def model(request):
    """The folder of each tiny model in turn."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def one_thread():
    """Torch on one thread for the time of a test."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
