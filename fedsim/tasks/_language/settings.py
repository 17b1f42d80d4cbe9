"""Fields of `task: {kind: language}`."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator, model_validator

from fedsim.config.fields import Count
from fedsim.cost.charge_as import ChargeAs
from fedsim.cost.quantised import Quantise, Word, quantise_of
from fedsim.errors import invalid
from fedsim.tasks._base import TaskComponent
from fedsim.tasks._chats.settings import Columns, Generate, LossOn, check_examples
from fedsim.tasks._sources import HELD_OUT, Holdout, check_data, spelled_out
from fedsim.tasks.partition import Iid, Partition


class LanguageSettings(TaskComponent):
    """Which model, which text or examples, and who has them.

    A window predicts `sequence` tokens from those before them in the window and one more. Test and
    valid windows do not overlap, and their last one is padded, so each of their tokens counts once.

    Attributes:
        format: `text`: running text, cut into windows; `chat`: rows of messages; `instruction`: rows of an instruction,
            perhaps an input, and an output; `completion`: rows of a prompt and a completion, written one behind the other.
        loss_on: `answers`: the loss, and what is scored, is on what the assistant says, on outputs or completions alone
            (the default of all but text); `all`: on every token of an example but its first.
        columns: names of the columns of examples, where they are not the usual ones.
        chat_template: a file with a Jinja template, instead of the tokenizer's own.
        pack: several examples a row, which are kept apart, instead of one that is filled up.
        generate: what is answered where `evaluate.splits` has `answers`.
        model: `builtin`, a folder written by `save_pretrained`, or a hub name.
        data: `builtin`; a folder with files called *train* and, if there are any, *valid* and *test* (in the name of
            the file, or of a folder around it); one .txt, .parquet, .csv, .tsv, .jsonl or .json file; or the name of
            a hub data set (parquet). Without a test file the last tenth of each label, owner or text is held out as
            test, which no client trains on.
        data_config: configuration of a hub data set (`wikitext-2-raw-v1`).
        data_revision: its branch or commit.
        text_column: column of a table; by default `text`, `sentence`, `content` or the only text column.
        client_column: who a row belongs to, for the partition `natural`; without it a folder says so
            (`alice/train.txt`), or of texts the file.
        label_column: a row's class, for `dirichlet` and `pathological`.
        time_column: when a row was written, as numbers or dates: rows come in that order, whatever that of the table is.
        newline: `eos`: every line is a unit, stripped, and its newline is `<eos>` (the convention of Penn
            Treebank, whose word count includes it); `keep`: newlines are text, a file, document or row is a
            unit; `auto`: `eos` for text files, `keep` for the rest. Every unit ends with `<eos>`.
        partition: who has which text; see `fedsim.tasks.partition`.
        sequence: predicted tokens of a window, or the most of an example: longer ones are cut, which is said.
        holdout: share of each client's windows it does not train on, at least one; `last` is short for 0.1 with
            `holdout_from: last`.
        holdout_from: `runs`: the end of each client's text, whose runs (consecutive text of one owner and label) come in
            an order drawn by address: one run at most is cut, so only there is a held-out window beside one that is
            trained on; `windows`: drawn from anywhere, nearly all of them beside training windows; `last`: the end of
            each client's text in the order of time (`time_column`, else the data's order, in which a client of several
            owners holds out the last of each). Examples are drawn, but for `last`.
        quantise: how the frozen weights of the linear layers are held, on the devices and here: `none`, `int8`, `nf4`, or a
            block (`fedsim.cost.quantised`). What is learned follows from the quantised weights.
        charge_as: the model that the clock charges instead of the one that trains.
    """

    format: Literal["text", "chat", "instruction", "completion"] = "text"
    loss_on: LossOn | None = None
    columns: Columns = Columns()
    chat_template: str | None = None
    pack: bool = False
    generate: Generate = Generate()
    model: str = "builtin"
    data: str = "builtin"
    data_config: str | None = None
    data_revision: str | None = None
    text_column: str | None = None
    client_column: str | None = None
    label_column: str | None = None
    time_column: str | None = None
    newline: Literal["auto", "eos", "keep"] = "auto"
    partition: Partition = Iid()
    sequence: Count = 64
    holdout: Holdout = HELD_OUT
    holdout_from: Literal["runs", "windows", "last"] = "runs"
    quantise: Word | Quantise = "none"
    charge_as: ChargeAs | None = None

    @model_validator(mode="before")
    @classmethod
    def _last(cls, values: object) -> object:
        return spelled_out(values)

    @field_validator("text_column", mode="before")
    @classmethod
    def _one_column(cls, value: object) -> object:
        if isinstance(value, list | tuple):
            fix = "write them joined into one column first, and name that one"
            raise invalid("columns are not joined: it is the name of one column", fix=fix, got=value)
        return value

    @model_validator(mode="after")
    def _columns_of_a_table(self) -> LanguageSettings:
        of_rows = (self.client_column, self.label_column, self.time_column)
        check_data(self.model, self.data, (self.text_column, *of_rows, *self.columns.named))
        check_examples(self.format, self.columns, self.loss_on, self.chat_template, pack=self.pack)
        if self.format != "text" and (self.text_column is not None or self.newline != "auto"):
            name = "newline" if self.text_column is None else "text_column"
            fix = "drop it, or set format: text"
            raise invalid(f"is of running text, and format is {self.format}", where=name, fix=fix)
        return self

    @property
    def on_answers(self) -> bool:
        """Whether the loss is on answers alone."""
        return self.format != "text" and self.loss_on != "all"

    @model_validator(mode="after")
    def _quantised_as_charged(self) -> LanguageSettings:
        how = self.quantised()
        if how is not None and self.charge_as is not None and self.charge_as.quantise is None:
            self.charge_as.check_quantised(how, of_task=True)
        return self

    def quantised(self) -> Quantise | None:
        """Return how the frozen weights are held where they are quantised."""
        return quantise_of(self.quantise)

    def sources(self) -> dict[str, str]:
        """Return the model and the data."""
        return {"model": self.model, "data": self.data}
