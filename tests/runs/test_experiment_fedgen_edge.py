"""The uplink of FedGen-Edge: published counts, a count upwards, a run that is charged so, and the page."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from worlds.loaded_scripts import fixture_of

import fedsim
from fedsim import views

FOLDER = Path(__file__).parents[2] / "experiments" / "fedgen_edge"


uplink = fixture_of(FOLDER / "uplink.py", "uplink_fedgen_edge")


@pytest.mark.parametrize(
    ("targets", "r", "params"),
    [
        ("c_attn", 8, 294_912),
        ("c_attn", 32, 1_179_648),
        ("all linear", 8, 1_179_648),
        ("all linear", 16, 2_359_296),
    ],
)
def test_adapters_of_gpt2_have_the_numbers_that_peft_counts(uplink, targets, r, params):
    row = next(u for u in uplink.uplinks() if (u.model, u.targets, u.r) == ("gpt2", targets, r))
    assert (row.params, row.full_params) == (params, 124_439_808)


def test_the_largest_rank_is_the_last_of_those_that_save_more_than_99_percent(uplink):
    shapes = {  # inputs + outputs of what is adapted in a layer, layers, numbers of the model, by hand
        ("smollm2-135m", "q and v"): (576 + 576 + 576 + 192, 30, 134_515_008),
        ("smollm2-135m", "attention"): (2 * (576 + 576) + 2 * (576 + 192), 30, 134_515_008),
        ("smollm2-135m", "all linear"): (2 * 1152 + 2 * 768 + 3 * (576 + 1536), 30, 134_515_008),
        ("gpt2", "c_attn"): (768 + 2304, 12, 124_439_808),
        ("gpt2", "attention"): (768 + 2304 + 2 * 768, 12, 124_439_808),
        ("gpt2", "all linear"): (768 + 2304 + 2 * 768 + 2 * (768 + 3072), 12, 124_439_808),
    }
    for (model, targets), (numbers, layers, full) in shapes.items():
        for bits in (32, 16, 8):
            saving = [r for r in range(1, 300) if 100 * bits * r * numbers * layers < 32 * full]
            assert uplink.largest_rank(model, targets, bits) == max(saving)


@pytest.mark.parametrize(
    ("model", "targets", "r"), [("smollm2-135m", "q and v", 4), ("gpt2", "all linear", 16)]
)
def test_a_run_charged_so_uploads_as_many_bytes(uplink, model, targets, r):
    row = next(u for u in uplink.uplinks() if (u.model, u.targets, u.r) == (model, targets, r))
    chosen = uplink.TARGETS[model][targets]
    charge = {"preset": model, "r": r, "targets": chosen, "tokens_per_visit": 10, "sequence": 16}
    run = fedsim.simulate(
        {
            "population": {"preset": "homogeneous", "clients": 4},
            "task": {"kind": "quadratic", "layout": "lora", "charge_as": charge},
            "local": {"optimizer": "sgd", "lr": 0.1, "steps": 1},
            "protocol": {"kind": "synchronous", "cohort": 2},
            "budget": {"commits": 3},
        },
        timeline_only=True,
    )
    saved = views.uplink_reduction(run).iloc[0]
    assert saved["adapter_bytes"] * uplink.ROUNDS * uplink.COHORT == row.bytes * saved["uploads"]
    assert saved["reduction"] == pytest.approx(row.saved, rel=1e-12)


def test_the_page_and_the_table_of_numbers_say_what_the_formula_says(uplink):
    assert "\n".join(uplink.tables()) in (FOLDER / "README.md").read_text("utf-8")
    with (FOLDER / "uplink.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    assert [(row["model"], row["targets"], int(row["r"]), int(row["bytes"])) for row in rows] == [
        (u.model, u.targets, u.r, u.bytes) for u in uplink.uplinks()
    ]
