"""Chats, instructions and completions: reading, templates and answers by hand, cutting, dealing, packing, bad input."""

from __future__ import annotations

import csv
import json
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fedsim.component import build
from fedsim.config.experiment import Experiment
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import DataError, ExperimentError
from fedsim.jobs import Job, Probe, TaskContext
from fedsim.metrics.sums import add_sums
from fedsim.tasks._chats.packing import rows_of
from fedsim.training.chats.rouge import rouge_l
from fedsim.training.chats.template import ChatTemplate, TemplateError

LOCAL = LocalConfig(optimizer="sgd", lr=0.05, epochs=1, batch=4)
R2 = LoraConfig(r=2, alpha=4.0)
PLAIN = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% if m.role == 'assistant' %}</s>{% endif %}{{ '\n' }}{% endfor %}"
PLAIN += "{% if add_generation_prompt %}[assistant] {% endif %}"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
USER = {"role": "user", "content": "the ship"}
SAID = {"role": "assistant", "content": "sails over"}


def chat(*pairs):
    """Messages of questions and answers."""
    return [
        {"role": role, "content": text}
        for pair in pairs
        for role, text in zip(("user", "assistant"), pair, strict=True)
    ]


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


CHATS = [
    {
        "messages": chat((f"the ship {i}", ("sea", "white waves", "a deep blue sea")[i % 3])),
        "who": f"u{i % 7}",
    }
    for i in range(40)
]


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    path = tmp_path_factory.mktemp("template") / "plain.jinja"
    path.write_text(PLAIN)
    return str(path)


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    return str(lines(tmp_path_factory.mktemp("chats") / "chats.jsonl", CHATS))


@pytest.fixture(scope="module")
def make(llama, template):
    def made(data, clients=4, local=LOCAL, **fields):
        fields = {"format": "chat", "sequence": 63, "chat_template": template} | fields
        if fields["format"] == "completion":
            del fields["chat_template"]
        settings = {"kind": "language", "model": llama, "data": str(data)} | fields
        return build("tasks", settings).build(TaskContext(clients, 0, R2, local))

    return made


def total(task, vector, split="test", client=None):
    return add_sums([task.score(vector, probe) for probe in task.probes(split, client=client)])


# templates by hand ------------------------------------------------------------------------------


def answers(template, turns):
    text, spans = ChatTemplate(template, {"eos_token": "</s>"}).answers(turns)
    return text, [text[start:stop] for start, stop in spans]


def test_answers_are_what_comes_behind_the_beginning_of_a_turn_with_the_mark_that_ends_it():
    turns = [
        {"role": "system", "content": "be brief"},
        *chat(("the ship", "sails"), ("and then", "it sinks")),
    ]

    text, said = answers(CHATML, turns)

    assert said == ["sails<|im_end|>", "it sinks<|im_end|>"]
    assert text.count("<|im_start|>") == 5
    assert answers(PLAIN, turns)[1] == ["sails</s>", "it sinks</s>"]


def test_an_answer_that_is_also_a_question_is_found_in_its_own_turn():
    assert answers(CHATML, chat(("yes", "yes"), ("no", "yes")))[1] == ["yes<|im_end|>"] * 2


def test_a_template_that_marks_its_answers_is_believed():
    marked = PLAIN.replace("{{ m.content }}", "{% generation %}{{ m.content }}{% endgeneration %}")
    only = marked.replace("{% generation %}", "{% if m.role == 'assistant' %}{% generation %}", 1)
    only = only.replace("{% endgeneration %}", "{% endgeneration %}{% else %}{{ m.content }}{% endif %}", 1)

    assert answers(only, chat(("the ship", "sails")))[1] == ["sails"]


def test_a_template_without_a_beginning_of_answers_leaves_the_role_out_of_them():
    bare = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"

    assert answers(bare, chat(("the ship", "sails")))[1] == ["sails\n"]


@pytest.mark.parametrize("word", ["a", "start", "assistant", "<|im_end|>", ""])
def test_an_answer_is_not_sought_in_the_words_of_the_template(word):
    bare = "{% for m in messages %}{{ m.role }}: {{ m.content }}</s>\n{% endfor %}"
    first = [{"role": "assistant", "content": word}, *chat(("the ship", word))]

    assert answers(bare, first)[1] == [f"{word}</s>"] * 2
    assert answers(CHATML, first)[1] == [f"{word}<|im_end|>"] * 2


def test_of_turns_that_are_written_otherwise_when_more_follows_what_they_say_is_the_answer():
    thinking = (
        "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}<think></think>"
        "{% endif %}{{ m.content }}<|im_end|>{{ '\n' }}{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant{{ '\n' }}{% endif %}"
    )

    said = answers(thinking, chat(("the ship", "sails"), ("sails", "sails"), ("and", "it sinks")))[1]

    assert said == ["sails<|im_end|>", "sails<|im_end|>", "<think></think>it sinks<|im_end|>"]


def test_a_template_that_leaves_earlier_answers_out_is_refused():
    forgetting = (
        "{% for m in messages %}{% if loop.last or m.role == 'user' %}{{ m.content }}{% endif %}|{% endfor %}"
    )

    with pytest.raises(TemplateError, match="otherwise when more follows"):
        answers(forgetting, chat(("the ship", "sails"), ("and", "sinks")))


def test_a_template_that_asks_for_today_is_told_the_same_day_for_ever():
    dated = "{{ strftime_now('%d %b %Y') }} " + PLAIN

    assert answers(dated, [USER, SAID])[0].startswith("26 Jul 2024 [user]")


# tokens by hand ---------------------------------------------------------------------------------


def test_tokens_are_those_of_the_template_s_text_and_answers_alone_are_learned(make, chats, tokenizer):
    rows = make(chats).dealt.sequences
    text = "[user] the ship 0\n[assistant] sea</s>\n"
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    begin = tokenizer("[user] the ship 0\n[assistant]", add_special_tokens=False)["input_ids"]

    first = rows[np.array([0])]

    assert first.tokens.tolist() == ids
    said = tokenizer.apply_chat_template(CHATS[0]["messages"], chat_template=PLAIN, return_dict=False)
    assert first.tokens.tolist() == said
    learned = np.flatnonzero(first.learned)
    assert (learned[0], learned[-1]) == (len(begin), ids.index(tokenizer.eos_token_id))
    assert learned.size == learned[-1] - learned[0] + 1


def test_loss_on_all_learns_every_token_but_the_first(make, chats):
    rows = make(chats, loss_on="all").dealt.sequences

    assert np.array_equal(~rows.learned, rows.places == 0)


def test_a_completion_is_prompt_answer_and_the_end_of_text_behind_the_token_that_begins_one(
    make, tmp_path, tokenizer
):
    data = lines(
        tmp_path / "d.jsonl", [{"prompt": f"corn {i}:", "completion": " green fields"} for i in range(20)]
    )
    rows = make(data, 2, format="completion").dealt.sequences
    ids = tokenizer("corn 0: green fields", add_special_tokens=False)["input_ids"]
    begin = tokenizer("corn 0:", add_special_tokens=False)["input_ids"]

    first = rows[np.array([0])]

    assert first.tokens.tolist() == [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
    assert first.learned.tolist() == [False] * (1 + len(begin)) + [True] * (len(ids) - len(begin) + 1)


def test_an_instruction_is_a_chat_of_two_turns_its_input_below_it(make, tmp_path):
    said = [{"instruction": "name it", "input": f"hens {i}", "output": "birds"} for i in range(20)]
    asked = [{"messages": chat((f"name it\n\nhens {i}", "birds"))} for i in range(20)]

    one = make(lines(tmp_path / "i.jsonl", said), 2, format="instruction").dealt.sequences
    other = make(lines(tmp_path / "c.jsonl", asked), 2).dealt.sequences

    assert one.tokens.tolist() == other.tokens.tolist()
    assert one.learned.tolist() == other.learned.tolist()


# sources ----------------------------------------------------------------------------------------


def as_csv(path, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(
            {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows
        )
    return path


def as_parquet(path, rows):
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


@pytest.mark.parametrize("write", [lines, as_csv, as_parquet])
def test_every_kind_of_table_gives_the_same_chats(make, chats, tmp_path, write):
    suffix = {lines: ".jsonl", as_csv: ".csv", as_parquet: ".parquet"}[write]
    same = make(write(tmp_path / f"data{suffix}", CHATS))

    assert same.dealt.sequences.tokens.tolist() == make(chats).dealt.sequences.tokens.tolist()
    assert same.facts["corpus_sha256"] == make(chats).facts["corpus_sha256"]


def test_a_folder_as_the_hub_lays_it_out_has_its_own_test_examples(make, tmp_path):
    (tmp_path / "data").mkdir()
    as_parquet(tmp_path / "data" / "train-00000-of-00001.parquet", CHATS)
    as_parquet(tmp_path / "data" / "test-00000-of-00001.parquet", CHATS[:5])
    task = make(tmp_path)

    assert (len(task.dealt.sequences), len(task.test.sequences)) == (40, 5)
    assert task.facts["notices"] == []


def test_conversations_as_sharegpt_has_them_and_parts_of_text_are_chats(make, chats, tmp_path):
    named = [
        {"conversations": [{"from": "human" if m["role"] == "user" else "gpt", "value": m["content"]} for m in row["messages"]]}
        for row in CHATS
    ]  # fmt: skip
    parts = [{"messages": [{**m, "content": [{"type": "text", "text": m["content"]}]} for m in row["messages"]]} for row in CHATS]  # fmt: skip

    for rows in (named, parts):
        task = make(lines(tmp_path / "d.jsonl", rows))
        assert task.dealt.sequences.tokens.tolist() == make(chats).dealt.sequences.tokens.tolist()


def test_a_table_with_both_names_of_a_role_has_it_under_the_one_that_is_filled(make, chats, tmp_path):
    both = [
        {
            **row,
            "messages": [
                {"role": None, "content": None, "from": m["role"], "value": m["content"]}
                for m in row["messages"]
            ],
        }
        for row in CHATS
    ]

    other, task = make(lines(tmp_path / "both.jsonl", both)), make(chats)

    assert other.facts["corpus_sha256"] == task.facts["corpus_sha256"]


def test_named_columns_are_read_and_owners_are_natural_clients(make, tmp_path):
    rows = [{"dialogue": row["messages"], "who": row["who"]} for row in CHATS]
    data = lines(tmp_path / "d.jsonl", rows)
    columns = {"messages": "dialogue"}

    task = make(data, 7, columns=columns, client_column="who", partition={"kind": "natural"})

    for client in range(7):
        rows_of_client = np.concatenate([task.splits.training[client], task.splits.held_out[client]])
        questions = {bytes(task.dealt.sequences[np.array([r])].tokens) for r in rows_of_client}
        assert len(questions) == len(rows_of_client)
    assert sum(task.splits.training.sizes) + sum(task.splits.held_out.sizes) == len(task.dealt.sequences)


def test_the_shipped_model_chats_about_the_standard_library_without_a_network():
    task = build("tasks", {"kind": "language", "format": "chat", "sequence": 96}).build(
        TaskContext(20, 0, R2, LOCAL)
    )

    assert task.facts["train_examples"] > 500
    assert task.facts["lost_examples"] == {"train": 0, "test": 0}


# cutting ----------------------------------------------------------------------------------------


def test_long_examples_are_cut_and_those_without_an_answer_are_left_out_and_counted(make, tmp_path):
    long_answer = {"messages": chat(("hens", "yellow hens " * 40))}
    long_question = {"messages": chat(("the cows " * 40, "moo"))}
    data = lines(tmp_path / "d.jsonl", [*CHATS[:28], long_answer, long_question])
    (tmp_path / "all").mkdir()
    data.rename(tmp_path / "all" / "train.jsonl")
    lines(tmp_path / "all" / "test.jsonl", CHATS[:4])

    task = make(tmp_path / "all")

    assert task.facts["cut_examples"]["train"] == 2
    assert task.facts["lost_examples"]["train"] == 1
    assert len(task.dealt.sequences) == 29
    assert task.facts["notices"] == [
        "2 of 30 examples of train are longer than 63 tokens: cut",
        "1 of those have no answer left and are left out: set task.sequence to more tokens",
    ]
    longest = int(task.dealt.sequences.counts.argmax())
    assert int(task.dealt.sequences.counts[longest]) == 63
    assert task.dealt.asked[longest] == -1


# packing ----------------------------------------------------------------------------------------


def test_packing_fills_rows_with_whole_examples_the_longest_first():
    lengths = np.array([9, 2, 5, 5, 8, 1, 10])

    rows = rows_of(lengths, room=10)

    assert sorted(e for row in rows for e in row) == list(range(7))
    assert [int(lengths[row].sum()) for row in rows] == [10, 10, 10, 10]


def test_packed_clients_train_on_the_same_tokens_and_keep_the_same_examples_apart(make, chats):
    padded, packed = make(chats), make(chats, pack=True)

    assert packed.dealt.sequences.packed
    assert not padded.dealt.sequences.packed
    for client in range(4):
        whole, packs = (t.dealt.sequences[t.splits.training[client]] for t in (padded, packed))
        assert sorted(whole.tokens.tolist()) == sorted(packs.tokens.tolist())
        assert int(whole.answers.sum()) == int(packs.answers.sum())
        assert len(packs) < len(whole)
        assert int(packs.counts.max()) <= 63
        kept = [t.dealt.sequences[t.splits.held_out[client]].tokens.tolist() for t in (padded, packed)]
        assert kept[0] == kept[1]


def test_packed_or_not_an_example_is_scored_alike(make, chats):
    padded, packed = make(chats), make(chats, pack=True)
    vector = padded.initial()
    shards = [total(t, vector, "shard", 1) for t in (padded, packed)]

    assert shards[0]["tokens"] == shards[1]["tokens"]
    assert shards[0]["nll"] == pytest.approx(shards[1]["nll"], rel=1e-6)
    assert total(padded, vector, "clients") == total(packed, vector, "clients")


# the task ---------------------------------------------------------------------------------------


def test_a_visit_has_the_tokens_that_were_announced_and_lowers_the_loss_of_answers(make, chats):
    task = make(chats)
    jobs = [Job(client, 0, task.initial(), LOCAL, 0) for client in range(4)]

    updates = pickle.loads(pickle.dumps(task)).train(jobs)  # our own bytes

    for client, update in enumerate(updates):
        assert update.tokens == task.tokens(client, LOCAL)
        assert task.tokens(client, LOCAL) == int(
            task.dealt.sequences.counts[task.splits.training[client]].sum()
        )
        after = task.metrics(total(task, update.end, "shard", client))
        before = task.metrics(total(task, task.initial(), "shard", client))
        assert after["loss"] < before["loss"]
        assert after["perplexity"] == pytest.approx(np.exp(after["loss"]))
        assert 0.0 <= after["token_accuracy"] <= 1.0


def test_with_steps_a_visit_is_charged_whole_epochs_and_the_mean_length_of_the_rest(make, chats):
    local = LocalConfig(optimizer="sgd", lr=0.05, steps=5, batch=4, epochs=None)
    task = make(chats, local=local)
    counts = task.dealt.sequences.counts[task.splits.training[0]]
    whole, rest = divmod(20, len(counts))

    assert task.tokens(0, local) == whole * int(counts.sum()) + round(rest * float(counts.mean()))


def test_the_cost_model_is_told_mean_and_longest_lengths_and_attention_by_each_example(make, chats):
    task = make(chats)
    rows = task.dealt.sequences.counts[task.splits.training.rows]
    mine = task.dealt.sequences.counts[task.splits.training[2]].astype(float)

    assert task.shape.sequence == int(np.ceil(rows.mean()))
    assert task.shape.longest == rows.max()
    assert task.mean_sequence(2) == pytest.approx((mine**2).sum() / mine.sum())


# generation -------------------------------------------------------------------------------------


def test_rouge_l_by_hand():
    assert rouge_l("the cat sat", "the cat sat") == 1.0
    assert rouge_l("a b c d", "a c x") == pytest.approx(2 * (2 / 4) * (2 / 3) / (2 / 4 + 2 / 3))
    assert rouge_l("", "a") == 0.0


def test_answers_are_the_likeliest_tokens_one_by_one(make, chats, tokenizer):
    task = make(chats, generate={"examples": 3, "tokens": 5, "shown": 2})
    rows = task.rows("answers", None)
    sums = task.score(task.initial(), Probe("answers", 0, 3))
    shown = task.read_answers(task.score(task.initial(), Probe("gallery", 0, 2)))

    assert sums["generated"] == 3
    assert set(task.metrics(sums)) == {"rouge_l", "exact_match"}
    import torch

    model = task.text_model._trainee().model
    for row, entry in zip(rows, shown, strict=False):
        asked = int(task.test.asked[row])
        ids = task.test.sequences[np.array([row])].tokens.astype(np.int64).tolist()
        prompt, said = ids[:asked], []
        for _ in range(5):
            logits = model(input_ids=torch.tensor([prompt + said])).logits[0, -1]
            said.append(int(logits.argmax()))
            if said[-1] in task.ends:
                said.pop()
                break
        assert entry.answer == tokenizer.decode(said, skip_special_tokens=True).strip()
        assert entry.expected == tokenizer.decode(ids[asked:], skip_special_tokens=True).strip()
        assert entry.question.startswith("[user] the ship")


# bad input --------------------------------------------------------------------------------------

BAD = {
    "no list of messages": ([{"messages": "hello"}], {}, "row 1 is no list of messages"),
    "no messages": ([{"messages": []}], {}, "row 1 has no messages"),
    "no message": ([{"messages": ["hi"]}], {}, "row 1, message 1 is no message"),
    "no role": ([{"messages": [{"content": "x"}]}], {}, "row 1, message 1 has no role"),
    "another role": ([{"messages": [{"role": "judge", "content": "x"}]}], {}, "has an unknown role"),
    "no content": ([{"messages": [{"role": "user"}]}], {}, "content is not text"),
    "a picture": ([{"messages": [{"role": "user", "content": [{"type": "image"}]}]}], {}, "holds more than text"),
    "a tool": (
        [{"messages": [USER, {"role": "assistant", "content": None, "tool_calls": [1]}]}],
        {},
        "message 2 calls a tool",
    ),
    "a tool and an empty text": (
        [{"messages": [USER, {"role": "assistant", "content": "", "tool_calls": [1]}]}],
        {},
        "message 2 calls a tool",
    ),
    "a function": (
        [{"messages": [USER, {"role": "assistant", "content": "", "function_call": {"name": "f"}}]}],
        {},
        "message 2 calls a tool",
    ),
    "a key twice in a cell": (
        [{"messages": '[{"role": "user", "content": "x"}, {"role": "assistant", "content": "x", "content": "y"}]'}],
        {},
        "row 1 gives one key twice",
    ),
    "no answer": ([CHATS[0], {"messages": [USER]}], {}, "row 2 has no message of the assistant's"),
    "half a character": ([{"messages": [USER, {**SAID, "content": "\ud83d"}]}], {}, "half of a character"),
    "no column": ([{"talk": CHATS[0]["messages"], "n": 1}], {}, "no column is called messages"),
    "another column": (CHATS[:3], {"columns": {"messages": "mesages"}}, "there is no such column"),
    "an empty completion": (
        [{"prompt": "a", "completion": ""}, {"prompt": "a", "completion": "b"}],
        {"format": "completion"},
        "row 1 has no completion",
    ),
    "a number": ([{"prompt": 3, "completion": "b"}] * 2, {"format": "completion"}, "prompt is not text"),
    "turns as a prompt": ([{"prompt": [USER], "completion": "b"}] * 2, {"format": "completion"}, "prompt is not text"),
    "no template": (CHATS, {"chat_template": None}, "the tokenizer has no chat template"),
    "no file": (CHATS, {"chat_template": "nowhere.jinja"}, "the template cannot be read"),
    "too long": (CHATS, {"sequence": 3}, "has an answer left within 3 tokens"),
    "too few": (CHATS[:6], {}, "4 clients need 8 examples"),
    "one": (CHATS[:1], {}, "one example is too few"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_a_way_out(make, tmp_path, case):
    rows, fields, said = BAD[case]
    with pytest.raises((DataError, ExperimentError)) as error:
        make(lines(tmp_path / "d.jsonl", rows), **fields)

    head, _, fix = str(error.value).partition("\n  fix: ")
    assert said in head
    assert "\n" not in head
    assert fix
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{% for m in messages %}", "it is no Jinja template"),
        ("hello", "does not write what a message says"),
        ("{{ messages[0].content }}{{ raise_exception('never') }}", "refuses it"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(make, chats, tmp_path, text, said):
    (tmp_path / "t.jinja").write_text(text)
    with pytest.raises(DataError, match=said):
        make(chats, chat_template=str(tmp_path / "t.jinja"))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"loss_on": "answers"}, "running text has no examples"),
        ({"pack": True}, "running text has no examples"),
        ({"columns": {"prompt": "x"}, "data": "d.csv"}, "running text has no examples"),
        ({"format": "chat", "columns": {"prompt": "x"}, "data": "d.csv"}, "format chat has no such column"),
        ({"format": "completion", "chat_template": "x", "data": "d.csv"}, "written without a template"),
        ({"format": "chat", "newline": "eos"}, "is of running text"),
        ({"format": "chat", "columns": {"messages": "m"}}, "the shipped data have no columns"),
        ({"format": "poem"}, "format"),
    ],
)
def test_settings_without_meaning_are_refused(fields, said):
    with pytest.raises(ExperimentError) as error:
        Experiment.model_validate({"task": {"kind": "language"} | fields, "budget": {"commits": 1}})

    assert said in str(error.value)
