"""A thousand run folders that were made to do harm, each read by every command: one sentence, or right; nothing else happens."""

from __future__ import annotations

import pytest
from worlds import hostile, hostile_trial

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]

FIRST, COUNT, PARTS = 1000, 1000, 4
"""Other numbers than those of tests/spec/records/test_hostile.py; in parts, which several processes can share."""


@pytest.mark.parametrize("part", range(PARTS))
def test_a_thousand_hostile_folders(part, tmp_path):
    sound = hostile.made(tmp_path / "sound")
    found, tried = [], 0
    place = tmp_path / "place"
    place.mkdir()
    numbers = list(range(FIRST + part, FIRST + COUNT, PARTS))
    while numbers:
        for trial in hostile_trial.trials(sound, place, numbers):  # ends early if its process does
            tried += 1
            numbers.pop(0)
            if trial.problems:
                found.append((trial.what, trial.problems))

    assert found == []
    assert tried == COUNT // PARTS
