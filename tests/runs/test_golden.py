"""Fourteen runs that cover protocols, rules, devices and links come out as they did when their digests were written.

If a change is meant: python tests/runs/golden.py --write, and say in the changelog what changed and why.
"""

import golden
import numpy as np
import pandas as pd
import pytest
from digests import columns, differences, digest

import fedsim


@pytest.mark.parametrize("name", golden.NAMES)
def test_every_column_is_as_it_was_written(name):
    lines = golden.changes(name, golden.trained(name))

    assert not lines, "\n" + "\n".join(lines)


@pytest.mark.parametrize("name", sorted({*golden.NAMES} - {*golden.READS_VALUES, *golden.SCHEDULE_ONLY}))
def test_the_schedule_without_training_has_the_same_digests(name):
    lines = golden.changes_without_training(name)

    assert not lines, "\n" + "\n".join(lines)


def test_every_run_has_digests_of_every_column():
    tables = {key for key in golden.stored("alone") if not key.startswith("adapter.")}

    for name in golden.NAMES:
        assert {key for key in golden.stored(name) if not key.startswith("adapter.")} == tables


def test_a_change_is_told_by_run_table_and_column():
    found = golden.trained("whole_model")
    found["visits.landed_s"] = found["visits.landed_s"].copy() + 1e-9
    found["adapter.x"] = found["adapter.x"] * np.float32(1.0001)
    del found["scores.split"]

    assert golden.changes("whole_model", found) == [
        "whole_model: adapter.x: differs",
        "whole_model: scores.split: is gone",
        "whole_model: visits.landed_s: differs",
    ]


def test_numbers_of_matrix_products_may_differ_in_their_last_bits_and_no_more():
    wanted = [1.0, None, -3e-9, 250.0]

    assert golden.close(wanted, [1.0 + 1e-7, None, -2e-9, 250.0 + 1e-5])
    assert not golden.close(wanted, [1.0 + 1e-2, None, -3e-9, 250.0])
    assert not golden.close(wanted, [1.0, 0.0, -3e-9, 250.0])
    assert not golden.close(wanted, wanted[:3])


def test_a_digest_sees_one_bit_one_missing_value_and_the_type():
    numbers = [0.1, 0.2, np.nan]
    others = [
        [0.1, np.nextafter(0.2, 1), np.nan], [0.1, np.nan, 0.2], [0.1, 0.2], [0.1, 0.2, 0.0], [-0.1, 0.2, np.nan],
        [1, 2, 3], ["0.1", "0.2", None], [True, False, True],
    ]  # fmt: skip
    found = {digest(values) for values in [numbers, *others]}

    assert len(found) == 1 + len(others)
    assert digest(["ab", "c"]) != digest(["a", "bc"])


def test_a_digest_does_not_depend_on_how_pandas_holds_a_column():
    whole = pd.Series([3, -1, 7])
    names = ["low", "", "höher"]

    assert digest(whole) == digest(whole.astype("int32")) == digest(whole.astype("Int64"))
    assert digest(names) == digest(pd.Series(names, dtype="str")) == digest(pd.Series(names, dtype=object))
    assert digest(pd.Series([1.5, None], dtype="Float64")) == digest([1.5, np.nan])


def test_columns_that_are_new_are_told():
    run = fedsim.simulate(fedsim.read(golden.FOLDER / "whole_model.yaml"), timeline_only=True)
    got = columns(run)

    assert differences({}, {"visits.new": 1}) == ["visits.new: is new"]
    assert {"visits.order", "clients.rank", "commits.version"} <= got.keys()
