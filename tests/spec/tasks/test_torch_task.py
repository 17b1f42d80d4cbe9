"""`task: {kind: torch}`: a user's model, data and loss, held against stock torch loops written out by hand."""

import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from worlds import own_models

from fedsim.config.learning import LocalConfig, LoraConfig, NumericsConfig
from fedsim.errors import WorkerError
from fedsim.jobs import Job, TaskContext
from fedsim.metrics.sums import add_sums
from fedsim.rng import seed_of
from fedsim.tasks.torch import Torch
from fedsim.training.local import batches
from fedsim.training.own import source as sources
from fedsim.training.own.model import loaded

LOCAL = LocalConfig(optimizer="sgd", lr=0.1, momentum=0.9, batch=4, epochs=2)
LORA = LoraConfig(r=2, alpha=4.0, targets="all")
FULL = LoraConfig(full=True)


def own(name, lora=FULL, local=LOCAL, *, clients=3, training="auto", settings=None, **fields):
    component = Torch(module=f"worlds.own_models:{name}", settings=settings or {}, **fields)
    return component.build(TaskContext(clients, 0, lora, local, NumericsConfig(training=training)))


def jobs(task, vector=None, clients=(0, 1, 2), **fields):
    start = task.initial() if vector is None else vector
    return [Job(client, 0, start, LOCAL, 7, **fields) for client in clients]


def module_of(task):
    return task.recipe.source.model()


def put(model, task, vector):
    """Write a vector of whole tensors into a model by their names."""
    state = {name: torch.tensor(array) for name, array in task.layout.arrays(vector).items()}
    model.load_state_dict(state, strict=False)


def by_hand(model, parameters, task, job, loss):
    """One visit as anybody would write it: fresh SGD, the rows of each step."""
    examples = task.data.at(task.splits.training[job.client])
    optimiser = torch.optim.SGD(parameters, lr=0.1, momentum=0.9)
    for rows in batches(len(examples), job):
        x, y = (tensor[torch.from_numpy(rows)] for tensor in examples.tensors)
        optimiser.zero_grad()
        loss(model, x, y).backward()
        optimiser.step()


def squared(model, x, y):
    return ((model(x) - y) ** 2).mean()


def moved(update, job):
    return float(np.abs(update.end - job.start).max())


# training -----------------------------------------------------------------------------------------


def test_a_whole_model_ends_where_a_stock_torch_loop_ends():
    task = own("Lines")
    for job, update in zip(jobs(task), task.train(jobs(task)), strict=True):
        model = module_of(task)
        put(model, task, job.start)
        by_hand(model, model.parameters(), task, job, squared)
        ends = torch.cat([p.detach().ravel() for p in model.parameters()]).numpy()

        assert np.abs(update.end - ends).max() < 1e-6
        assert moved(update, job) > 0.05


@pytest.mark.parametrize("training", ["swapped", "sequential"])
def test_adapters_end_where_a_stock_peft_loop_ends(training):
    from peft import LoraConfig as PeftLora
    from peft import get_peft_model

    task = own("Lines", LORA, training=training)
    assert task.recipe.path == training
    for job, update in zip(jobs(task), task.train(jobs(task)), strict=True):
        model = get_peft_model(module_of(task), PeftLora(r=2, lora_alpha=4, target_modules=["0", "2"]))
        factors = {name: p for name, p in model.named_parameters() if p.requires_grad}
        with torch.no_grad():
            for name, array in task.layout.arrays(job.start).items():
                factors[f"base_model.model.{name}.default.weight"].copy_(torch.tensor(array))
        by_hand(model, list(factors.values()), task, job, squared)
        ends = torch.cat([p.detach().ravel() for p in factors.values()]).numpy()

        assert np.abs(update.end - ends).max() < 1e-5
        assert moved(update, job) > 0.01


def test_a_mean_trains_as_the_losses_it_is_the_mean_of():
    one, many = own("Mean"), own("Lines")
    for mean, each in zip(one.train(jobs(one)), many.train(jobs(many)), strict=True):
        assert np.abs(mean.end - each.end).max() < 1e-6
        assert mean.tokens == each.tokens
        assert mean.loss == pytest.approx(each.loss, rel=1e-5)


def test_running_statistics_travel_and_counters_begin_anew():
    task = own("Pictures")
    names = [tensor.name for tensor in task.layout.tensors]
    assert names[-2:] == ["1.running_mean", "1.running_var"]
    assert task.recipe.counters == ("1.num_batches_tracked",)
    first, second = (task.train(jobs(task))[0] for _ in range(2))
    place = task.layout.slices["1.running_var"][0]

    assert np.array_equal(first.end, second.end)
    assert not np.array_equal(first.end[place], task.initial()[place])


def test_dropout_is_on_in_a_whole_model_and_addressed_by_visit_and_step():
    task = own("Pictures")
    (job,) = jobs(task, clients=[1])
    model = module_of(task).train()
    put(model, task, job.start)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    examples = task.data.at(task.splits.training[1])
    for step, rows in enumerate(batches(len(examples), job)):
        torch.manual_seed(seed_of(7, "train", 1, 0, "step", step))
        optimiser.zero_grad()
        part = examples[rows].batch
        nn.functional.cross_entropy(model(part["picture"]), part["label"]).backward()
        optimiser.step()
    named = dict(model.state_dict())
    ends = torch.cat([named[tensor.name].ravel() for tensor in task.layout.tensors]).numpy()

    assert np.abs(task.train([job])[0].end - ends).max() < 1e-6


def test_training_leaves_torchs_generator_as_it_was():
    task = own("Pictures")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    task.train(jobs(task))

    assert torch.equal(torch.get_rng_state(), before)


def test_only_what_the_user_left_trainable_trains_and_travels():
    task = own("Partly")

    assert [t.name for t in task.layout.tensors] == ["2.weight", "2.bias"]
    assert (task.shape.adapter_params, task.shape.params, task.shape.full) == (12, 20, False)
    assert moved(task.train(jobs(task))[0], jobs(task)[0]) > 0


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Mean", "`loss` returns a mean"),
        ("Recurrent", "in a batch with another client an example has another loss"),
        ("ReadsCompany", "in a batch with another client an example has another loss"),
    ],
)
def test_clients_that_cannot_train_together_train_one_by_one_and_the_run_says_why(name, why):
    task = own(name, LORA)

    assert task.recipe.path == "sequential"
    assert why in task.describe()["notices"][0]


PRACTISED = {
    "patterns": LoraConfig(r=2, alpha=1.0, rank_pattern={"0": 1}, alpha_pattern={"1.1": 2.0}),
    "a pattern of one of two names": LoraConfig(r=2, alpha=1.0, rank_pattern={"^0": 1}),
    "all of it": LoraConfig(
        r=2,
        alpha=1.0,
        rslora=True,
        dora=True,
        bias="all",
        lr_ratio=4.0,
        rank_pattern={"0": 3},
        targets=("0",),
    ),
    "a head": LoraConfig(r=2, alpha=1.0, targets=("0",), modules_to_save=("1.1",), bias="lora_only"),
}


@pytest.mark.parametrize("lora", PRACTISED.values(), ids=PRACTISED)
def test_layers_whose_names_end_alike_are_told_apart_and_stock_peft_loads_what_is_saved(lora, tmp_path):
    from peft import PeftModel

    alone = own("Nested", lora, training="sequential")
    update = alone.train(jobs(alone))[1]
    if not lora.modules_to_save:
        together = own("Nested", lora, training="swapped")
        assert np.abs(together.train(jobs(together))[1].end - update.end).max() < 1e-6
    alone.save_adapter(update.end, tmp_path)
    loaded_by_peft = PeftModel.from_pretrained(module_of(alone), str(tmp_path)).eval()
    examples = alone.data.test(np.arange(40))
    losses = alone.recipe.source.task.loss(loaded_by_peft.base_model.model, examples.batch)
    sums = add_sums([alone.score(update.end, probe) for probe in alone.probes("test")])

    assert moved(update, jobs(alone)[1]) > 1e-3
    assert losses.mean().item() == pytest.approx(alone.metrics(sums)["loss"], rel=1e-5)


def test_metrics_that_a_batch_lacks_are_no_part_of_a_mean():
    task = own("Fickle")
    with pytest.raises(WorkerError, match="gives other metrics than for the first batch"):
        add_sums([task.score(task.initial(), probe) for probe in task.probes("test")])


def test_clients_of_a_convolution_train_together():
    together, alone = own("Pictures", LORA), own("Pictures", LORA, training="sequential")
    ends = [task.train(jobs(task)) for task in (together, alone)]

    assert (together.recipe.path, alone.recipe.path) == ("swapped", "sequential")
    for one, other in zip(*ends, strict=True):
        assert np.abs(one.end - other.end).max() < 1e-5


# data ---------------------------------------------------------------------------------------------


def test_every_client_has_its_own_data_and_keeps_a_share_apart():
    task = own("Lines", holdout=0.5)

    assert [task.examples(client) for client in range(3)] == [3, 4, 5]
    assert task.describe()["test_examples"] == 40
    seen = np.concatenate([*task.splits.training, *task.splits.held_out])
    assert sorted(seen.tolist()) == list(range(6 + 8 + 10))
    both = [np.sort(np.concatenate([task.splits.training[1], task.splits.held_out[1]]))]
    assert torch.equal(task.data.at(both[0]).tensors[0], task.recipe.source.client(1)[0].tensors[0])


def test_the_last_examples_are_held_out_where_that_is_asked_for():
    task = own("Lines", holdout="last")

    assert [rows.tolist() for rows in task.splits.held_out] == [[5], [13], [23]]
    assert task.splits.training[1].tolist() == list(range(6, 13))


def test_what_the_class_keeps_apart_is_held_out_and_all_else_trains():
    task = own("Kept")

    assert [task.examples(client) for client in range(3)] == [6, 8, 10]
    assert task.splits.held_out.sizes == [3, 3, 3]
    examples, trained = task.recipe.source.client(2)
    assert trained == 10
    assert torch.equal(task.data.at(task.splits.held_out[2]).tensors[1], examples.tensors[1][10:])


def test_rows_of_several_clients_come_in_the_order_that_is_asked_for():
    task = own("Lines")
    rows = np.array([20, 0, 7, 6, 23])
    each = [task.data.at(rows[at : at + 1]).tensors[0] for at in range(5)]

    assert torch.equal(task.data.at(rows).tensors[0], torch.cat(each))


def test_sizes_that_are_said_are_held_against_the_data(monkeypatch):
    task = own("Sized")
    assert [task.examples(client) for client in range(3)] == [5, 7, 9]
    assert not task.data.checksums.size
    monkeypatch.setattr(own_models.Sized, "data", lambda self, _: self.drawn(5))
    sources.forget()

    with pytest.raises(WorkerError, match="has 5 examples here, and 8 were announced"):
        task.train(jobs(task, clients=[1]))


def test_a_pool_is_dealt_by_its_labels_and_a_tenth_of_it_is_test():
    task = own("Pictures", LORA, partition={"kind": "pathological", "classes": 1}, clients=2)
    labels = [set(task.data.at(rows).tensors[1].tolist()) for rows in task.splits.training]

    assert sorted(map(len, labels)) == [1, 1]
    assert task.describe()["test_examples"] == 6
    assert sum(task.splits.training.sizes) + sum(task.splits.held_out.sizes) == 54


def test_a_pool_is_dealt_by_its_owners():
    task = own("Pictures", LORA, partition={"kind": "natural"}, clients=6, settings={"owned": True})
    whole = [np.concatenate(pair) for pair in zip(task.splits.training, task.splits.held_out, strict=True)]

    assert sorted({int(rows[0]) // 10 for rows in whole}) == list(range(6))
    assert all(len(set((rows // 10).tolist())) == 1 for rows in whole)


def test_samples_of_a_data_set_are_stacked():
    task = own("Samples")
    batch = task.data.at(np.array([0, 1, 2]))

    assert [tuple(tensor.shape) for tensor in batch.tensors] == [(3, 1, 6, 6), (3,)]
    assert batch.tensors[1].tolist() == [0, 1, 0]


# scores and costs ---------------------------------------------------------------------------------


def test_scores_are_means_over_all_examples():
    task = own("Lines")
    sums = add_sums([task.score(task.initial(), probe) for probe in task.probes("test")])
    model, (x, y) = module_of(task), task.recipe.source.test().tensors
    error = (model(x) - y).detach()

    metrics = task.metrics(sums)
    assert list(metrics) == ["loss", "error", "largest"]
    assert metrics["loss"] == pytest.approx(float((error**2).mean()), rel=1e-5)
    assert metrics["error"] == pytest.approx(float(error.abs().mean()), rel=1e-5)


def test_a_client_is_scored_on_what_it_keeps_apart():
    task = own("Kept")
    (probe,) = task.probes("client", client=1)
    x, y = (tensor[8:] for tensor in task.recipe.source.client(1)[0].tensors)

    assert task.score(task.initial(), probe)["examples"] == 3
    assert task.score(task.initial(), probe)["loss"] == pytest.approx(
        3 * squared(module_of(task), x, y).item(), rel=1e-5
    )
    assert sum(task.score(task.initial(), p)["examples"] for p in task.probes("clients")) == 9


def test_operations_of_two_linear_maps_are_those_of_the_formulas():
    whole, adapted = own("Lines").shape.operations, own("Lines", LORA).shape.operations
    first, second, r = 3 * 5, 5 * 2, 2

    assert whole.forward == 2 * (first + second)
    assert whole.backward == 2 * (first + second) + 2 * second  # weights, and the states between the maps
    a, b = r * (3 + 5), r * (5 + 2)
    assert adapted.forward == 2 * (first + second + a + b)
    # of each map: B, through B, A; and through the second map and its A
    assert adapted.backward == 2 * (2 * r * 5 + r * 3) + 2 * (2 * r * 2 + r * 5) + 2 * (second + r * 5)


def test_a_slot_of_rank_costs_what_the_next_rank_costs_more():
    narrow = own("Pictures", LORA, training="sequential").shape.operations
    wide = own("Pictures", LoraConfig(r=5, alpha=4.0, targets="all"), training="sequential").shape.operations
    slots = narrow.at_rank(5)

    assert (slots.forward, slots.backward) == (wide.forward, wide.backward)
    assert slots.kept_bytes == wide.kept_bytes


def test_a_convolution_costs_its_products_at_every_place():
    forward = own("Pictures").shape.operations.forward

    assert forward == 2 * (4 * 4 * 4 * 9) + 2 * 64 * 2


def test_work_that_is_stated_is_charged():
    work = {"forward_flops": 1e6, "backward_flops": 3e6, "activation_bytes": 1e5}
    shape = own("Lines", LORA, work=work, tokens_per_example=4).shape

    assert (shape.operations.flops(checkpoint=False), shape.sequence) == (4_000_000, 4)
    assert shape.operations.activation_bytes(checkpoint=False, number_bytes=4.0) == 1e5
    task = own("Lines", LORA, tokens_per_example=4)
    assert task.tokens(0, LOCAL) == 2 * 5 * 4
    assert [u.tokens for u in task.train(jobs(task))] == [task.tokens(c, LOCAL) for c in range(3)]


# processes and files ------------------------------------------------------------------------------


def test_a_task_goes_to_another_process_as_a_name_and_settings():
    task = own("Lines", LORA, settings={"hidden": 64})
    sent = pickle.dumps(task)

    assert len(sent) < 12_000
    again = pickle.loads(sent)
    assert again.recipe == task.recipe
    assert all(
        np.array_equal(a.end, b.end)
        for a, b in zip(again.train(jobs(task)), task.train(jobs(task)), strict=True)
    )


def test_a_worker_that_builds_another_model_says_so(monkeypatch):
    task = own("Lines")
    loaded.cache_clear()
    monkeypatch.setattr(
        own_models.Lines, "model", lambda _: nn.Sequential(nn.Linear(3, 9), nn.Tanh(), nn.Linear(9, 2))
    )

    with pytest.raises(
        WorkerError, match=r"another model here .*0.weight is float32 \(9, 3\), and was float32 \(5, 3\)"
    ):
        task.train(jobs(task))
    loaded.cache_clear()


def test_a_worker_that_has_other_data_says_so(monkeypatch):
    task = own("Lines")
    monkeypatch.setattr(own_models.Lines, "data", lambda self, client: self.drawn(6 + 2 * client)[::-1])
    sources.forget()
    rows = task.splits.training[1]

    with pytest.raises(WorkerError, match=r"`Lines.data\(1\)` gives other examples here"):
        task.data.at(rows)
    sources.forget()


def test_an_adapter_is_saved_as_stock_peft_loads_it(tmp_path):
    from peft import PeftModel

    task = own("Pictures", LORA)
    end = task.train(jobs(task))[0].end
    assert task.save_adapter(end, tmp_path) == 2
    model = PeftModel.from_pretrained(module_of(task), str(tmp_path)).eval()
    examples = task.data.at(task.splits.training[0])
    loss = task.recipe.source.task.loss(model, examples.batch).mean().item()
    (probe,) = task.probes("shard", client=0)
    sums = task.score(end, probe)

    assert sums["loss"] / sums["examples"] == pytest.approx(loss, rel=1e-5)


def test_a_whole_model_is_saved_by_the_names_of_its_weights(tmp_path):
    from safetensors.torch import load_file

    task = own("Pictures")
    end = task.train(jobs(task))[0].end
    assert task.save_adapter(end, tmp_path) == 0
    model = copy.deepcopy(module_of(task))
    missing, unexpected = model.load_state_dict(load_file(tmp_path / "model.safetensors"), strict=False)

    assert (set(missing) - {"1.num_batches_tracked"}, unexpected) == (set(), [])
    assert np.array_equal(
        dict(model.named_parameters())["5.bias"].detach().numpy(), task.layout.arrays(end)["5.bias"]
    )
