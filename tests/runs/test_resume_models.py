"""Real adapters of text and pictures go on with equal bytes: private layers, second adapters, samples of an average."""

import pytest
from worlds.resumed_runs import contents, resumed, started

import fedsim

BUFFERED = {"kind": "buffered", "concurrency": 3, "buffer": 2}


@pytest.fixture(scope="module")
def language(gpt2, text_folder):
    def build(personal, **blocks):
        return fedsim.Experiment.model_validate({
            "task": {"kind": "language", "model": gpt2, "data": str(text_folder), "sequence": 16},
            "lora": {"r": 2, "alpha": 4.0, "targets": ["c_attn"], "dropout": 0.1},
            "population": {"preset": "mixed_edge_2025", "clients": 4},
            "protocol": BUFFERED,
            "local": {"optimizer": "adamw", "lr": 0.02, "steps": 2, "batch": 4},
            "budget": {"commits": 5},
            "evaluate": {"every_commits": 2, "windows": 2},
            "personal": personal,
            "numerics": {"client_batch": 3},
            "runtime": {"executor": "inline", "checkpoint_commits": 1},
            **blocks,
        })  # fmt: skip

    return build


def same_when_gone_on_with(experiment, folder, *, stop):
    started(experiment, folder / "whole")
    assert started(experiment, folder / "cut", stop=stop) is None
    run = resumed(folder / "cut")

    assert run.info.resumed[0].version == stop - 1
    whole, again = contents(folder / "whole"), contents(folder / "cut")
    assert {name: data == whole[name] for name, data in again.items()} == dict.fromkeys(whole, True)


@pytest.mark.parametrize(
    ("personal", "blocks"),
    [
        ({"kind": "fedper", "unseen": 1}, {}),
        ({"kind": "feddpa"}, {"protocol": {"kind": "synchronous", "cohort": 2}}),
        ({"kind": "ditto"}, {"wire": {"dtype": "int8", "down_dtype": "bfloat16"}, "aggregator": {"kind": "rolora"}}),
        ({"kind": "none"}, {"aggregator": {"kind": "fedex"}, "numerics": {"training": "sequential"}}),
    ],
    ids=["fedper", "feddpa", "ditto-rolora-coded", "fedex-sequential"],
)  # fmt: skip
def test_text(language, personal, blocks, tmp_path):
    same_when_gone_on_with(language(personal, **blocks), tmp_path, stop=4)


@pytest.mark.slow
def test_pictures(tmp_path):
    experiment = fedsim.Experiment.model_validate({
        "population": {"preset": "mixed_edge_2025", "clients": 5},
        "task": {"kind": "images", "partition": {"kind": "pathological", "classes": 1}, "samples": 50, "sampling_steps": 2, "grid": 4},
        "lora": {"r": 4, "alpha": 4, "targets": ["attention", "resnets"]},
        "local": {"lr": 3e-3, "steps": 2, "batch": 8},
        "protocol": BUFFERED,
        "budget": {"commits": 3},
        "evaluate": {"every_commits": 1, "splits": ["test", "samples"], "windows": 48, "ema": 0.5},
        "personal": {"kind": "ditto"},
        "runtime": {"executor": "inline", "checkpoint_commits": 1},
    })  # fmt: skip
    same_when_gone_on_with(experiment, tmp_path, stop=3)
