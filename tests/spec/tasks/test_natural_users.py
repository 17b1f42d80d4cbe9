"""Natural users: who becomes a client, with how much of its data, in which order of time, and what of it is held out, by hand."""

from __future__ import annotations

import datetime as dt
import io
import json
import re
from dataclasses import replace
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import TypeAdapter, ValidationError
from tokenizers import Tokenizer

from fedsim.builtin import model_folder
from fedsim.config.learning import LocalConfig, LoraConfig
from fedsim.errors import DataError
from fedsim.jobs import TaskContext
from fedsim.tasks._images.data import Source, read
from fedsim.tasks._natural.last import last_at_the_end, owner_facts
from fedsim.tasks._natural.owners import rooms
from fedsim.tasks._natural.times import in_order, moments
from fedsim.tasks._splits import Ragged, Splits
from fedsim.tasks.images import Images
from fedsim.tasks.language import Language
from fedsim.tasks.partition import Blocks, Partition, partition

READ = TypeAdapter(Partition).validate_python
SIZES = (5, 1, 9, 3, 7)
"""Examples of owners 0 to 4, one behind the other: 25."""
WHOSE = np.repeat(np.arange(5), SIZES)


def deal(clients, minimum=2, seed=0, groups=WHOSE, sizes=None, unit="examples", **how):
    blocks = Blocks(
        np.ones(len(groups), np.int64) if sizes is None else np.array(sizes), None, np.array(groups)
    )
    rng = np.random.default_rng(seed)
    share, moved = partition(READ({"kind": "natural"} | how), blocks, clients, minimum, rng, unit=unit)
    assert moved == 0
    return [part.tolist() for part in share]


# who is a client ---------------------------------------------------------------------------------


def test_as_many_owners_as_clients_are_the_clients_in_their_order_with_all_they_have():
    assert deal(4) == [
        [*range(5)],
        [*range(6, 15)],
        [*range(15, 18)],
        [*range(18, 25)],
    ]  # owner 1 has too little for one


def test_of_more_owners_some_are_drawn_whole_and_each_seed_draws_others():
    whole = [np.flatnonzero(WHOSE == owner).tolist() for owner in (0, 2, 3, 4)]
    pairs = [deal(2, seed=seed) for seed in range(40)]
    assert all(share[0] in whole and share[1] in whole and share[0] < share[1] for share in pairs)
    assert {tuple(map(len, share)) for share in pairs} == {(5, 9), (5, 3), (5, 7), (9, 3), (9, 7), (3, 7)}


def test_the_largest_owners_can_be_asked_for():
    assert [len(part) for part in deal(2, more_owners="largest")] == [9, 7]
    assert [len(part) for part in deal(3, more_owners="largest")] == [5, 9, 7]


def test_merged_owners_go_whole_the_largest_first_to_whoever_has_least():
    """9 | 7, 7 + 5 = 12 | then 3 to 9 = 12, and 1 to the first of the two that have 12."""
    merged = deal(2, more_owners="merge")
    assert [sorted({int(WHOSE[row]) for row in part}) for part in merged] == [[1, 2, 3], [0, 4]]
    assert sorted(chain(*merged)) == list(range(25))


def test_an_owner_below_the_floor_is_no_client_and_one_above_the_cap_keeps_its_latest_data():
    assert deal(3, least=5) == [[*range(5)], [*range(6, 15)], [*range(18, 25)]]
    assert deal(4, most=4) == [[*range(1, 5)], [*range(11, 15)], [*range(15, 18)], [*range(21, 25)]]
    assert deal(3, least=4, most=6) == [[*range(5)], [*range(9, 15)], [*range(19, 25)]]


def test_of_merged_owners_the_floor_leaves_some_out_too():
    merged = deal(2, more_owners="merge", least=4)
    assert sorted(chain(*merged)) == [row for row in range(25) if SIZES[WHOSE[row]] >= 4]


def test_fewer_owners_are_cut_into_runs_in_proportion_and_no_client_has_data_of_two():
    """Webster's seats for 8, of sizes 5, 9, 3, 7, at most size // 2 each: 2, 3, 1, 2."""
    share = deal(8)
    assert [sorted({int(WHOSE[row]) for row in part}) for part in share] == [
        [0],
        [0],
        [2],
        [2],
        [2],
        [3],
        [4],
        [4],
    ]
    assert [len(part) for part in share] == [3, 2, 3, 3, 3, 3, 4, 3]
    assert all(np.diff(part).tolist() == [1] * (len(part) - 1) for part in share)


def test_fewer_owners_can_be_refused_and_too_many_clients_are():
    with pytest.raises(
        DataError, match=r"4 owners with at least 2 examples are fewer than the clients \(got 6\)"
    ):
        deal(6, fewer_owners="refuse")
    assert len(deal(4, fewer_owners="refuse")) == 4
    with pytest.raises(
        DataError, match=r"4 owners with at least 2 examples can be cut into 10 clients \(got 11\)"
    ):
        deal(11)


def test_a_floor_that_nobody_reaches_and_a_cap_below_a_client_are_refused():
    with pytest.raises(DataError, match="none of 5 owners has 10 examples: the largest has 9"):
        deal(2, least=10)
    with pytest.raises(DataError, match=r"task.partition.most: a client needs 2 examples \(got 1\)"):
        deal(2, most=1)
    with pytest.raises(ValidationError, match="`least` is more than `most`"):
        READ({"kind": "natural", "least": 5, "most": 4})


@settings(max_examples=30, deadline=None)
@given(
    whose=st.lists(st.integers(0, 6), min_size=8, max_size=60),
    clients=st.integers(1, 5),
    least=st.integers(1, 6),
    most=st.one_of(st.none(), st.integers(6, 12)),
    how=st.sampled_from(["draw", "largest"]),
)
def test_each_client_is_one_owner_with_its_last_examples(whose, clients, least, most, how):
    """The same once more with dictionaries."""
    dense = np.unique(whose, return_inverse=True)[1]
    held = {
        owner: [row for row, whose_row in enumerate(dense) if whose_row == owner]
        for owner in set(dense.tolist())
    }
    kept = {owner: rows if most is None else rows[-most:] for owner, rows in held.items()}
    large = [owner for owner in sorted(kept) if len(kept[owner]) >= max(2, least)]
    if len(held) < 2 or len(large) < clients:
        return
    share = deal(
        clients, groups=dense, least=least, more_owners=how, **({} if most is None else {"most": most})
    )
    owners = [int(dense[part[0]]) for part in share]
    assert owners == sorted(set(owners))
    assert set(owners) <= set(large)
    assert share == [kept[owner] for owner in owners]
    if how == "largest":
        assert sum(map(len, share)) == sum(sorted((len(kept[o]) for o in large), reverse=True)[:clients])


def test_a_cap_is_exact_inside_a_block_and_follows_time():
    sizes, groups = np.array([10, 10, 10, 8]), np.array([0, 0, 1, 0])
    assert rooms(sizes, groups, 13).tolist() == [0, 5, 10, 8]
    assert rooms(sizes, groups, 13, when=np.array([3, 2, 1, 0])).tolist() == [10, 3, 10, 0]
    assert rooms(sizes, groups, None).tolist() == sizes.tolist()


def test_what_is_left_out_is_said_in_numbers():
    shares = Ragged.of([np.array([0, 1]), np.array([2, 3, 4]), np.array([9])])
    facts, notices = owner_facts(np.array([0, 0, 1, 1, 2, 3, 3, 3, 3, 0]), shares, 40, "examples")
    assert facts == {
        "owners": 4,
        "owners_with_a_client": 3,
        "owners_per_client": [1, 1, 2],
        "clients_per_owner": [1, 1, 2],
        "examples_over_the_cap": 40,
    }
    assert notices == [
        "data of 1 of 4 owners are no client's",
        "40 examples beyond task.partition.most are left out, each owner's earliest",
    ]


# time --------------------------------------------------------------------------------------------


def test_moments_are_numbers_or_dates_and_equal_ones_keep_their_order():
    def order(values):
        return in_order(moments(values, "t.csv"), "t.csv")

    assert order([3, 1.5, 2, 1.5]) == [1, 3, 2, 0]
    assert order(["10", "9", "1e1", " 8 "]) == [3, 1, 0, 2]  # as numbers, not as text
    assert order([10**18 + 1, 10**18]) == [1, 0]  # nanoseconds, which no float tells apart
    assert order(["2026-11-28T09:30:00", "2026-11-28", "2025-12-31 23:59"]) == [2, 1, 0]
    assert order([dt.date(2026, 3, 1), dt.datetime(2026, 2, 28, 23, 59)]) == [1, 0]  # noqa: DTZ001
    assert order(["2026-01-01T10:00:00+02:00", "2026-01-01T09:00:00+00:00"]) == [0, 1]


@pytest.mark.parametrize("value", ["tomorrow", float("inf"), "nan", True, [1], "9" * 400, "2026-02-30"])
def test_what_is_no_time_names_its_row(value):
    with pytest.raises(DataError, match=r"task.time_column: t.csv: row 2 says no time"):
        moments([1, value], "t.csv")


def test_numbers_and_dates_or_dates_with_and_without_an_offset_are_not_compared():
    with pytest.raises(DataError, match="row 1 is a number, row 3 a date"):
        moments([1, 2, "2026-01-01"], "t.csv")
    with pytest.raises(DataError, match="row 1 is a date, row 2 a date with an offset"):
        moments(["2026-01-01", "2026-01-01T00:00:00Z"], "t.csv")
    with pytest.raises(DataError, match="some files have a date, others a number"):
        in_order([*moments([1], "a"), *moments(["2026-01-01"], "b")], "folder")


# what is held out --------------------------------------------------------------------------------


def ends(shares, sizes, groups, holdout=0.25, when=None, *, timed=False):
    rows = Ragged.of([np.array(part) for part in shares])
    ordered = last_at_the_end(rows, np.array(sizes), np.array(groups), holdout, when, timed=timed)
    return [part.tolist() for part in ordered]


def test_one_owner_holds_out_the_end_of_its_time():
    when = np.array([5, 0, 3, 1, 2, 4])
    ordered = ends([[0, 1, 2], [3, 4, 5]], [1] * 6, [0] * 6, when=when)
    assert ordered == [[1, 2, 0], [3, 4, 5]]
    splits = Splits.dealt(Ragged.of([np.array(part) for part in ordered]), 0.34, {}, 0, last=True)
    assert [rows.tolist() for rows in splits.held_out] == [[0], [5]]


def test_a_client_of_several_owners_holds_out_the_last_of_each_or_the_last_of_all_where_time_is_known():
    groups = [0, 0, 0, 0, 1, 1, 1, 1]
    assert ends([range(8)], [1] * 8, groups) == [[0, 1, 2, 4, 5, 6, 3, 7]]
    when = np.array([0, 1, 2, 7, 3, 4, 5, 6])
    assert ends([range(8)], [1] * 8, groups, when=when, timed=True) == [[0, 1, 2, 4, 5, 6, 7, 3]]
    assert ends([range(3)], [30, 10, 5], [0, 0, 1]) == [[0, 2, 1]]  # of one block nothing is late


@pytest.fixture(scope="module")
def diary(tmp_path_factory):
    """Four writers of 40, 60, 80 and 100 rows, shuffled, whose rows say their number, which is their time."""
    path = tmp_path_factory.mktemp("diary") / "rows.jsonl"
    rows = [
        {
            "text": f"n{1000 * who + k:05d}x the ship",
            "who": f"w{who}",
            "at": f"2026-01-01T{k // 60:02d}:{k % 60:02d}",
        }
        for who, count in enumerate((40, 60, 80, 100))
        for k in range(count)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    path.write_text("".join(json.dumps(rows[i]) + "\n" for i in order))
    return path


def language(llama, data, clients=4, seed=0, **fields):
    context = TaskContext(clients, seed, LoraConfig(r=2), LocalConfig(lr=0.01, epochs=1, batch=4))
    settings_ = {"sequence": 8, "client_column": "who", "time_column": "at", "partition": {"kind": "natural"}}
    return Language.model_validate({"model": llama, "data": str(data)} | settings_ | fields).build(context)


def rows_in(tokenizer, windows):
    return [int(n) for w in windows for n in re.findall(r"n(\d{5})x", tokenizer.decode(w[1:]))]


def test_each_writer_is_a_client_that_trains_on_the_past_and_holds_out_its_last_days(llama, tokenizer, diary):
    task = language(llama, diary, holdout="last")
    seen = []
    for training, held_out in zip(task.splits.training, task.splits.held_out, strict=True):
        past, last = (rows_in(tokenizer, task.windows.tokens[rows]) for rows in (training, held_out))
        assert past == sorted(past)
        assert max(past) < min(last)
        assert len(held_out) == max(1, round(0.1 * (len(training) + len(held_out))))
        assert len({row // 1000 for row in past + last}) == 1
        seen.append((past[0] // 1000, max(last) % 1000))
    assert {who for who, _ in seen} == set(range(4))
    counts = dict(enumerate((40, 60, 80, 100)))
    for who, latest in seen:  # a tenth of each writer is the test, the latest; a row may be cut at a seam
        assert 0.9 * counts[who] - 2 <= latest < 0.9 * counts[who]
    tested = rows_in(tokenizer, task.test.tokens)
    assert {(row // 1000, row % 1000 >= 0.9 * counts[row // 1000]) for row in tested} == {
        (w, True) for w in range(4)
    }
    assert task.facts["owners_per_client"] == task.facts["clients_per_owner"] == [1, 1, 1]


def test_last_is_short_for_a_tenth_from_the_end(llama, diary):
    short, long = (
        language(llama, diary, **fields)
        for fields in ({"holdout": "last"}, {"holdout": 0.1, "holdout_from": "last"})
    )
    assert short.splits.held_out.rows.tolist() == long.splits.held_out.rows.tolist()
    assert short.windows.tokens.tobytes() == long.windows.tokens.tobytes()
    more = language(llama, diary, holdout=0.3, holdout_from="last")
    assert len(more.splits.held_out.rows) > 2 * len(short.splits.held_out.rows)


def test_a_merged_client_with_times_holds_out_what_its_writers_wrote_last(llama, tokenizer, diary):
    merged = {"kind": "natural", "more_owners": "merge"}
    task = language(llama, diary, clients=2, holdout="last", partition=merged)
    for training, held_out in zip(task.splits.training, task.splits.held_out, strict=True):
        past, last = (rows_in(tokenizer, task.windows.tokens[rows]) for rows in (training, held_out))
        assert len({row // 1000 for row in past}) == 2
        late = [row % 1000 for row in last]
        assert np.mean(late) > np.mean([row % 1000 for row in past])


def test_the_cap_of_a_text_is_exact_in_tokens_and_leaves_the_earliest_out(llama, tokenizer, diary):
    task = language(llama, diary, holdout="last", partition={"kind": "natural", "most": 200, "least": 100})
    sizes = [8 * (a + b) for a, b in zip(task.splits.training.sizes, task.splits.held_out.sizes, strict=True)]
    assert sizes == [200] * 4
    assert task.facts["tokens_over_the_cap"] == task.facts["train_tokens"] - 4 * 200
    assert any("beyond task.partition.most" in notice for notice in task.facts["notices"])
    for rows in task.splits.training:
        assert min(row % 1000 for row in rows_in(tokenizer, task.windows.tokens[rows])) > 5


def test_makers_of_images_are_clients_that_hold_out_their_last_pictures(tmp_path):
    """Pictures of one grey, which is their number: 8, 12 and 4 of three makers, whose times run backwards."""
    whose = [0] * 8 + [1] * 12 + [2] * 4
    greys = range(10, 10 + len(whose))

    def png(grey):
        buffer = io.BytesIO()
        Image.new("L", (8, 8), grey).save(buffer, "PNG")
        return buffer.getvalue()

    table = {
        "image": [{"bytes": png(g)} for g in greys],
        "label": [0] * 24,
        "who": whose,
        "at": [-g for g in greys],
    }
    pq.write_table(pa.table(table), tmp_path / "train.parquet")
    few = {"image": [{"bytes": png(1)}], "label": [0], "who": [0], "at": [0]}
    pq.write_table(pa.table(few), tmp_path / "test.parquet")
    context = TaskContext(2, 0, LoraConfig(r=2), LocalConfig(lr=0.01, epochs=1, batch=4))
    fields = {
        "client_column": "who",
        "time_column": "at",
        "samples": 0,
        "data": str(tmp_path),
        "holdout": "last",
    }
    natural = {"kind": "natural", "more_owners": "largest", "most": 10}
    task = Images.model_validate(fields | {"partition": natural}).build(context)
    seen = [[task.pictures.pixels[row, 0, 0, 0].item() for row in rows] for rows in task.splits.training]
    last = [[task.pictures.pixels[row, 0, 0, 0].item() for row in rows] for rows in task.splits.held_out]
    assert last == [
        [18],
        [10],
    ]  # the last in time of makers 1 and 0, who come in the order of their first picture
    assert seen == [[*range(27, 18, -1)], [*range(17, 10, -1)]]  # of twelve, ten
    assert task.facts["images_over_the_cap"] == 2


def test_a_folder_of_pictures_says_neither_whose_they_are_nor_when_they_were_made(tmp_path):
    (tmp_path / "cats").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / "cats" / "a.png")
    plain = Source(str(tmp_path), None, None, None, None, 1, 8)
    for name in ("client_column", "time_column"):
        with pytest.raises(DataError, match=rf"task.{name}: a folder of images has no columns \(got 'who'\)"):
            read(replace(plain, **{name: "who"}))


def test_people_who_chat_are_clients_that_hold_out_their_last_answers(tmp_path):
    """Three people with 20, 10 and 30 answers, from the last to the first; a tenth of each is the test, a tenth of the rest held out."""
    rows = [
        {"messages": [{"role": "user", "content": "?"}, {"role": "assistant", "content": f"n{100 * who + k:05d}x"}],
         "who": who, "at": k}
        for who, count in enumerate((20, 10, 30))
        for k in reversed(range(count))
    ]  # fmt: skip
    (tmp_path / "chats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    fields = {
        "format": "chat",
        "client_column": "who",
        "time_column": "at",
        "sequence": 64,
        "holdout": "last",
    }
    context = TaskContext(3, 0, LoraConfig(r=2), LocalConfig(lr=0.01, epochs=1, batch=4))
    natural = {"data": str(tmp_path / "chats.jsonl"), "partition": {"kind": "natural", "most": 20}}
    task = Language.model_validate(fields | natural).build(context)
    said = Tokenizer.from_file(str(model_folder() / "tokenizer.json"))

    def numbers(rows):
        texts = (said.decode(task.dealt.sequences[np.array([row])].tokens.tolist()) for row in rows)
        return [int(re.findall(r"n(\d{5})x", text)[0]) for text in texts]

    assert sorted(
        (numbers(rows), numbers(held))
        for rows, held in zip(task.splits.training, task.splits.held_out, strict=True)
    ) == [
        ([*range(16)], [16, 17]),  # 20: two are the test, two held out
        ([*range(100, 108)], [108]),
        ([*range(207, 225)], [225, 226]),  # 27 after the test, of which the last 20
    ]
    assert task.facts["examples_over_the_cap"] == 7


def test_another_order_of_the_rows_is_the_same_task_where_time_is_known(llama, diary, tmp_path):
    lines = diary.read_text().splitlines(keepends=True)
    (tmp_path / "rows.jsonl").write_text("".join(sorted(lines)))
    one, other = (language(llama, path, holdout="last") for path in (diary, tmp_path / "rows.jsonl"))

    def of_owners(task):
        return {
            task.windows.tokens[rows].tobytes(): task.windows.tokens[held].tobytes()
            for rows, held in zip(task.splits.training, task.splits.held_out, strict=True)
        }

    assert of_owners(one) == of_owners(other)
