"""Whole runs on chats: synchronous and buffered, in client batches and one by one, without training, gone on with, with answers kept."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import yaml
from worlds.resumed_runs import contents, resumed, started

import fedsim
from fedsim import report
from fedsim.cli.app import call

PLAIN = (
    "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}[assistant] {% endif %}"
)
PROTOCOLS = {
    "sync": {"kind": "synchronous", "cohort": 3},
    "buffered": {"kind": "buffered", "concurrency": 3, "buffer": 2},
}


def messages(i):
    """A chat of one or two turns, of a length of its own."""
    turns = [("the ship sails over", "sea " * (1 + i % 4))] * (1 + i % 2)
    return [
        {"role": role, "content": text}
        for pair in turns
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("chats")
    rows = [{"messages": messages(i), "who": f"u{i % 6}"} for i in range(72)]
    (place / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (place / "plain.jinja").write_text(PLAIN)
    return place


@pytest.fixture(scope="module")
def experiment(llama, folder):
    def made(protocol="buffered", task=(), **blocks):
        return fedsim.Experiment.model_validate({
            "name": "chats",
            "task": {
                "kind": "language", "format": "chat", "model": llama, "data": str(folder / "chats.jsonl"), "sequence": 63,
                "chat_template": str(folder / "plain.jinja"), "client_column": "who", "partition": {"kind": "natural"},
                "generate": {"examples": 2, "tokens": 4, "shown": 0}, **dict(task),
            },
            "lora": {"r": 2, "alpha": 4.0, "targets": ["q_proj", "v_proj"]},
            "population": {"preset": "mixed_edge_2025", "clients": 6},
            "protocol": PROTOCOLS[protocol],
            "local": {"optimizer": "sgd", "lr": 0.05, "epochs": 1, "batch": 4},
            "budget": {"commits": 3},
            "evaluate": {"every_commits": 3},
            "runtime": {"executor": "inline", "checkpoint_commits": 1},
            **blocks,
        })  # fmt: skip

    return made


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_run_learns_answers_and_its_schedule_is_known_without_training(experiment, protocol):
    trained = fedsim.simulate(experiment(protocol), report=False)
    timeline = fedsim.simulate(experiment(protocol), timeline_only=True)

    schedule = ["client", "time_s", "outcome", "tokens", "flops", "up_bytes", "joules", "ended_s", "landed_s"]
    there = [name for name in schedule if name in trained.visits]
    pd.testing.assert_frame_equal(trained.visits[there], timeline.visits[there])
    curve = fedsim.views.curve(trained, "perplexity")["value"]
    assert curve.iloc[-1] < curve.iloc[0]
    scored = set(trained.scores.metric)
    assert {"perplexity", "token_accuracy", "loss"} <= scored


def test_visits_are_charged_their_real_tokens_and_attention_by_their_examples(experiment):
    from fedsim.cost.formulas import train_flops
    from fedsim.runs import simulation

    plan = simulation.prepared(experiment())
    table = fedsim.simulate(experiment(), timeline_only=True).clients.set_index("client")
    task, shape = plan.task, plan.shape
    for client in range(6):
        lengths = task.dealt.sequences.counts[task.splits.training[client]].tolist()
        each = [
            train_flops(shape, n) * 1.0 + 12 * 0.5 * shape.layers * shape.width * n * (n - shape.sequence)
            for n in lengths
        ]
        assert table.tokens[client] == sum(lengths)
        assert table.visit_flops[client] == pytest.approx(sum(each), rel=1e-9)


def test_client_batches_and_stock_peft_one_by_one_come_to_the_same_scores(experiment):
    ends = []
    for path in ("auto", "sequential"):
        run = fedsim.simulate(experiment(task={"pack": True}, numerics={"training": path}), report=False)
        ends.append(run.scores[run.scores.metric == "loss"].value.to_numpy())

    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-4)


def test_a_run_goes_on_with_equal_bytes_and_its_answers(experiment, tmp_path):
    asked = experiment(
        task={"generate": {"examples": 2, "tokens": 4, "shown": 1}},
        personal={"kind": "fine-tune"},
        evaluate={"every_commits": 3, "splits": ["test", "answers"]},
    )
    whole = started(asked, tmp_path / "whole")
    assert started(asked, tmp_path / "cut", stop=2) is None
    resumed(tmp_path / "cut")

    first, again = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    assert {name: data == first[name] for name, data in again.items()} == dict.fromkeys(first, True)
    entries = json.loads((tmp_path / "whole" / "samples" / "answers.json").read_text())
    clients = [entry["client"] for entry in entries]
    assert clients[0] is None
    assert len(set(clients[1:])) == 3
    assert entries[0]["question"].startswith("[user] the ship")
    assert all(isinstance(entry["before"], str) and isinstance(entry["after"], str) for entry in entries)
    assert [entry["own"] is None for entry in entries] == [True, False, False, False]
    assert set(whole.scores[whole.scores.split == "answers"].metric) == {"rouge_l", "exact_match"}
    page = report.write([whole], tmp_path / "page.html").read_text()
    assert "What the model answers" in page
    assert "ROUGE-L" in page
    assert call(["verify", str(tmp_path / "whole")]) == 0


def test_a_broken_row_ends_a_command_with_one_sentence_and_code_2(experiment, folder, tmp_path, capsys):
    settings = experiment().model_dump(mode="json")
    broken = folder.parent / "broken.jsonl"
    broken.write_text('{"messages": [{"role": "user", "content": "hi"}], "who": "a"}\n')
    settings["task"]["data"] = str(broken)
    (tmp_path / "broken.yaml").write_text(yaml.safe_dump(settings))

    assert call(["run", str(tmp_path / "broken.yaml"), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.splitlines()
    assert [line[:7] for line in error] == ["error: ", "  fix: "]
    assert "row 1 has no message of the assistant's" in error[0]
    assert not (tmp_path / "run").exists()
