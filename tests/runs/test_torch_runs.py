"""Runs of a user's own model: FedAvg as a stock torch loop has it, sync and async, personal parts, resumed, and what is refused."""

import pytest
import torch
import yaml
from pandas.testing import assert_frame_equal
from safetensors.torch import load_file
from worlds.extensions import PAGE, installed
from worlds.resumed_runs import contents, resumed, started

import fedsim
from fedsim.cli.app import call
from fedsim.errors import RunError
from fedsim.jobs import Job
from fedsim.records.verify import verify
from fedsim.tasks.torch import Torch
from fedsim.training.local import batches

BASE = {
    "name": "own",
    "task": {"kind": "torch", "module": "worlds.own_models:Lines"},
    "population": {"preset": "homogeneous", "clients": 3},
    "lora": {"full": True},
    "local": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "batch": 4, "epochs": 2},
    "protocol": {"kind": "synchronous", "cohort": 3},
    "evaluate": {"every_commits": 1, "splits": ["test", "clients"]},
    "budget": {"commits": 2},
    "runtime": {"executor": "inline", "checkpoint_commits": 1},
}
ADAPTERS = {"r": 2, "alpha": 4.0, "targets": "all"}
FEDBUFF = {"kind": "buffered", "concurrency": 3, "buffer": 2}


def experiment(**blocks):
    return fedsim.Experiment.model_validate(BASE | blocks)


# the same as stock torch --------------------------------------------------------------------------


def hand_written(task, typed, rounds):
    """FedAvg: every client trains from the global weights, and their mean by examples is the next."""
    source = task.recipe.source
    weights = {name: p.detach().clone() for name, p in source.model().named_parameters()}
    for visit in range(rounds):
        ends, sizes = [], []
        for client in range(3):
            model = source.model()
            model.load_state_dict(weights)
            optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
            x, y = task.data.at(task.splits.training[client]).tensors
            job = Job(client, visit, None, typed.local, typed.training_seed)
            for rows in batches(len(x), job):
                optimiser.zero_grad()
                ((model(x[rows]) - y[rows]) ** 2).mean().backward()
                optimiser.step()
            ends.append(dict(model.named_parameters()))
            sizes.append(len(x))
        shares = [size / sum(sizes) for size in sizes]
        pairs = [list(zip(shares, ends, strict=True))] * len(weights)
        weights = {
            name: sum(share * end[name].detach() for share, end in pair)
            for name, pair in zip(weights, pairs, strict=True)
        }
    return weights


def test_two_rounds_of_fedavg_end_where_a_stock_torch_loop_ends(tmp_path):
    typed = experiment()
    fedsim.simulate(typed, out=tmp_path / "run", report=False)
    final = load_file(tmp_path / "run" / "adapter" / "model.safetensors")
    task = Torch(module="worlds.own_models:Lines").build(fedsim.TaskContext(3, 0, typed.lora, typed.local))
    wanted, first = hand_written(task, typed, 2), dict(task.recipe.source.model().named_parameters())

    assert set(final) == set(wanted)
    assert max(float((final[name] - wanted[name]).abs().max()) for name in wanted) < 1e-6
    assert max(float((final[name] - first[name].detach()).abs().max()) for name in wanted) > 0.1


# every way ----------------------------------------------------------------------------------------

WAYS = {
    "adapters": {"lora": ADAPTERS},
    "adapters one by one, async": {
        "lora": ADAPTERS,
        "protocol": FEDBUFF,
        "task": {"kind": "torch", "module": "worlds.own_models:Mean"},
    },
    "ranks, int8, FlexLoRA": {
        "lora": {**ADAPTERS, "rank_by": "memory", "ranks": [1, 2]},
        "aggregator": {"kind": "flexlora"},
        "wire": {"dtype": "int8"},
    },
    "a moved base": {"lora": ADAPTERS, "aggregator": {"kind": "fedex"}, "protocol": FEDBUFF},
    "one factor after the other": {"lora": ADAPTERS, "aggregator": {"kind": "rolora"}},
    "a layer trained whole beside adapters": {
        "lora": {"r": 2, "targets": ["0"], "modules_to_save": ["2"]},
        "protocol": FEDBUFF,
    },
    "DoRA, in client batches": {"lora": {**ADAPTERS, "dora": True}, "numerics": {"training": "swapped"}},
    "private layers": {"lora": ADAPTERS, "personal": {"kind": "fedper"}},
    "whole, async, Ditto": {"protocol": FEDBUFF, "personal": {"kind": "ditto"}},
    "whole with statistics, FedProx, momentum": {
        "task": {"kind": "torch", "module": "worlds.own_models:Pictures"},
        "local": {**BASE["local"], "prox_mu": 0.1, "clip_norm": 1.0, "schedule": "cosine"},
        "server_optimizer": {"kind": "momentum", "lr": 0.1},
        "personal": {"kind": "fine-tune"},
    },
    "a part": {"task": {"kind": "torch", "module": "worlds.own_models:Partly"}},
}


@pytest.mark.parametrize("way", WAYS)
def test_a_run_learns_passes_the_audit_and_has_the_schedule_of_its_timeline(way):
    typed = experiment(**WAYS[way])
    run, timeline = fedsim.simulate(typed), fedsim.simulate(typed, timeline_only=True)
    seconds = [name for name in run.visits if name.endswith(("_s", "_bytes"))]

    assert verify(run) == []
    assert_frame_equal(
        run.visits[["client", "outcome", *seconds]], timeline.visits[["client", "outcome", *seconds]]
    )
    assert set(run.scores.metric) >= {"loss"}
    losses = run.scores[(run.scores.metric == "loss") & (run.scores.split == "clients")].value.to_numpy()
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("way", ["a moved base", "whole, async, Ditto"])
def test_a_run_that_was_cut_goes_on_to_the_same_bytes(way, tmp_path):
    typed = experiment(**WAYS[way], budget={"commits": 4})
    started(typed, tmp_path / "whole")
    assert started(typed, tmp_path / "cut", stop=3) is None
    assert resumed(tmp_path / "cut", trust=True).info.resumed[0].version == 2

    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.ray
def test_ray_workers_import_the_users_class_and_train_to_the_same_tables():
    inline = fedsim.simulate(experiment(lora=ADAPTERS))
    workers = fedsim.simulate(experiment(lora=ADAPTERS, runtime={"executor": "ray", "workers": 2}))

    for table in ("visits", "commits", "scores"):
        assert_frame_equal(getattr(workers, table), getattr(inline, table))


def test_the_text_classifier_of_the_page_learns_with_lora(tmp_path):
    with installed(tmp_path, page=PAGE.parent / "torch.md"):
        run = fedsim.simulate(fedsim.read(tmp_path / "text_task.yaml"))
    losses = run.scores[(run.scores.metric == "loss") & (run.scores.split == "test")].value.to_numpy()

    assert verify(run) == []
    assert run.info.task["model"] == "text_task:Packages"
    assert set(run.scores.metric) == {"loss", "accuracy"}
    assert losses[-1] < losses[0] - 0.05


# what is refused ----------------------------------------------------------------------------------

REFUSED = {
    "NoSuchModule": ("no_such_module:Task", {}, ["task.module", "there is no module 'no_such_module'"]),
    "no class": ("worlds.own_models:Liens", {}, ["has no class 'Liens'", "did you mean 'Lines'?"]),
    "no colon": ("worlds.own_models", {}, ["names no class of a module"]),
    "no TorchTask": ("worlds.own_models:NotATask", {}, ["must be a subclass of fedsim.training.own.base.TorchTask"]),
    "no loss": ("NoLoss", {}, ["NoLoss has no method `loss(model, batch)`"]),
    "neither data nor pool": ("NoData", {}, ["has neither `data(client)` nor `pool()`"]),
    "other arguments": ("OtherArguments", {}, ["`loss(batch)` that is called with (model, batch)"]),
    "an unknown setting": ("Lines", {"task.settings": {"hiden": 3}}, ["task.settings.hiden", "did you mean 'hidden'?"]),
    "a wrong setting": ("Lines", {"task.settings": {"hidden": "x"}}, ["task.settings.hidden"]),
    "no tensor": ("NoTensor", {}, ["`NoTensor.loss` returns a float, which is no tensor"]),
    "a matrix": ("Matrix", {}, ["returns a tensor of shape (4, 2) for 4 examples"]),
    "no gradient": ("NoGradient", {}, ["`NoGradient.loss` has no gradient"]),
    "not finite": ("NotFinite", {}, ["`NotFinite.loss` of the first batch is not finite"]),
    "nobody": ("Nobody", {}, ["`Nobody.data(2)` has no example"]),
    "one example": ("One", {}, ["`One.data(0)` has one example, and one is to be held out"]),
    "unequal columns": ("Unequal", {}, ["tensors of 6 and 5 rows"]),
    "other shapes": ("OtherShape", {}, ["`OtherShape.data(1)` gives float32 (4,)", "float32 (3,)"]),
    "words": ("Words", {}, ["`Words.data(0)` gives"]),
    "another model": ("OtherModel", {}, ["builds another model when it is called again: 0.weight is float32"]),
    "lazy layers": ("Lazy", {}, ["`Lazy.model` returns lazy layers"]),
    "other numbers": ("OtherNumbers", {}, ["builds another model when it is called again: 0.weight has other numbers"]),
    "one model": ("OneModel", {}, ["returns the same weights at each call"]),
    "no model": ("NoModel", {}, ["`NoModel.model` returns a list, which is no torch.nn.Module"]),
    "no layers": ("NoLayers", {"lora": ADAPTERS}, ["lora.targets", "Scaled has no Linear"]),
    "no such target": ("Lines", {"lora": {"targets": ["q_proj"]}}, ["lora.targets", "'q_proj'", "this model has 0, 2"]),
    "a layer that is not used": ("Unused", {"lora": ADAPTERS}, ["lora.targets", "does not go through idle"]),
    "bfloat16": ("Half", {}, ["trains in bfloat16"]),
    "raises": ("Raises", {}, ["`Raises.loss` raised TypeError", "own_models.py, line"]),
    "odd metrics": ("OddMetrics", {}, ["`OddMetrics.metrics` gives 'pairs' the shape (3, 2)"]),
    "a metric called loss": ("TakenName", {}, ["calls a metric 'loss'"]),
    "a counter in a frozen model": ("Counting", {"lora": ADAPTERS}, ["changes its buffer calls"]),
    "a frozen weight that moves": ("Moves", {"lora": ADAPTERS}, ["changes the frozen weight 0.bias"]),
    "a part that moves": ("Teacher", {}, ["changes the frozen weight teacher.weight"]),
    "two names of one end": (
        "Twofold",
        {"lora": {"targets": ["subhead"], "modules_to_save": ["head"]}},
        ["lora.modules_to_save", "PEFT would train subhead whole, too"],
    ),
    "a file": ("worlds/own_models.py:Lines", {}, ["names a file in the place of a module", "write own_models:Lines"]),
    "no numbers": ("Weightless", {}, ["returns tensors on the device meta"]),
    "a sparse tensor": ("Scattered", {}, ["gives a tensor of the kind sparse_coo"]),
    "quits": ("Quits", {}, ["`Quits.loss` raised SystemExit: 3"]),
    "owners that are missing": (
        "Orphans",
        {"task.partition": {"kind": "natural"}},
        ["gives example 0 none of the owners"],
    ),
    "keys that are numbers": ("Numbered", {}, ["gives a dict with the key 0, where names are wanted"]),
    "a partition of own data": ("Lines", {"task.partition": {"kind": "iid"}}, ["task.partition", "nothing is left to deal"]),
    "no labels": (
        "Pictures",
        {"task.partition": {"kind": "dirichlet"}, "task.settings": {"labelled": False}},
        ["gives no labels, which dirichlet needs"],
    ),
    "no owners": ("Pictures", {"task.partition": {"kind": "natural"}}, ["gives no owners, which natural needs"]),
    "too many clients": ("Pictures", {"population": {"preset": "homogeneous", "clients": 50}}, ["too many for the data"]),
    "no test": ("Recurrent", {"evaluate": {"splits": ["valid"]}}, ["evaluate.splits", "define `test`"]),
    "fused": ("Lines", {"lora": ADAPTERS, "numerics": {"training": "fused"}}, ["numerics.training", "is not written out"]),
    "swapped": ("Mean", {"lora": ADAPTERS, "numerics": {"training": "swapped"}}, ["returns a mean and not one loss"]),
    "a depth": ("Lines", {"lora": {**ADAPTERS, "depth": 1}}, ["lora.depth_by", "counted over all"]),
    "a dtype": ("Lines", {"numerics": {"dtype": "bfloat16"}}, ["numerics.dtype"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_wrong_is_said_in_one_sentence_before_anything_starts(case, tmp_path, capsys, monkeypatch):
    module, changes, expected = REFUSED[case]
    blocks = {**BASE, "task": {"kind": "torch", "module": module if ":" in module or "." in module else f"worlds.own_models:{module}"}}  # fmt: skip
    for name, value in changes.items():
        block, _, key = name.partition(".")
        blocks[block] = {**blocks[block], key: value} if key else value
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(yaml.safe_dump(blocks))

    assert call(["run", "own.yaml"]) == 2
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (out, [line[:7] for line in lines]) == ("", ["error: ", "  fix: "]), err
    assert all(word in err for word in expected), err
    assert [path.name for path in tmp_path.iterdir()] == ["own.yaml"]


def test_a_run_folder_does_not_have_its_module_imported_unless_it_is_trusted(tmp_path, capsys, monkeypatch):
    module = tmp_path / "somebodys.py"
    module.write_text("from worlds.own_models import Lines as Theirs\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    typed = experiment(task={"kind": "torch", "module": "somebodys:Theirs"})
    fedsim.simulate(typed, out=tmp_path / "run", report=False)
    monkeypatch.delitem(__import__("sys").modules, "somebodys")
    module.write_text("raise SystemExit('imported')\n")

    assert call(["verify", str(tmp_path / "run")]) == 0
    assert "not replayed" in (said := capsys.readouterr().out)
    assert "is not imported from a run folder: somebodys" in said
    assert call(["resume", str(tmp_path / "run")]) == 2
    assert "is not imported from a run folder: somebodys" in capsys.readouterr().err


def test_a_model_that_leaves_the_numbers_is_refused_update_by_update():
    local = {"optimizer": "sgd", "lr": 1e30, "steps": 9, "batch": 4}
    with pytest.raises(RunError, match=r"all \d+ were refused, .* numbers are not finite"):
        fedsim.simulate(experiment(local=local))
