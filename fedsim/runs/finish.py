"""The end of a run: one function for each thing that it leaves beside its visits, commits and scores."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from fedsim.executors import Executor
from fedsim.records.info import RunInfo, SavedAdapter
from fedsim.records.run import Run
from fedsim.records.writer import Writer
from fedsim.server.after import personalize
from fedsim.server.after.answers import keep
from fedsim.server.after.gallery import hang
from fedsim.server.after.personalize import FinalState
from fedsim.server.server import Server
from fedsim.server.values.goals import Best

MIXED = "the processors differ: the schedule is the same on all of them, losses and weights agree to rounding only"
"""The word for nodes that do not compute alike."""


def finish(server: Server, executor: Executor, writer: Writer) -> None:
    """Leave what needs the final model: the table of personal gains, the adapter, pictures and answers."""
    final = FinalState(
        server.plan, executor, server.average.model, server.state, server.private_parts, server.version
    )
    for row in personalize.rows(final):
        writer.personal(row)
    if writer.folder is None:
        return
    if not server.private_parts.waits:
        saved = save_adapter(final, writer.folder / "adapter")
        if saved is not None:
            writer.note(replace(writer.info, saved_adapter=saved))
    keep_best(final, server.trainer.evaluations.best, writer)
    hang(final, writer.folder / "samples")
    keep(final, writer.folder / "samples")


def keep_best(final: FinalState, best: Best, writer: Writer) -> None:
    """Write the best scored version for stock libraries, if one is kept."""
    if writer.folder is not None and best.model is not None:
        save_adapter(replace(final, model=best.model), writer.folder / "best")
        writer.note(replace(writer.info, best=best.version))


def save_adapter(final: FinalState, folder: Path) -> SavedAdapter | None:
    """Write the final model for stock libraries; returns what `run.json` says about it, None of a plain adapter."""
    task, model = final.plan.task, final.model
    if final.base is None:
        task.save_adapter(model.adapter.vector, folder)
        return None
    assert model.base is not None
    rank = task.save_adapter(model.adapter.vector, folder, final.base)
    about = "the change of the frozen weights and the adapter in one exact adapter"
    return SavedAdapter(rank=rank, base_version=model.base.version, holds=about)


def ended(info: RunInfo, server: Server, executor: Executor | None, ended_s: float) -> RunInfo:
    """Complete `run.json` with what the simulation knows at its end, at virtual time `ended_s`."""
    away_share, batteries = server.attendance.facts(ended_s)
    return replace(
        on_processors(info, executor),
        executor=type(executor).__name__ if executor is not None else "none (timeline only)",
        workers=0 if executor is None else executor.workers,
        end_time_s=ended_s,
        totals=server.ledger.totals(
            clients=server.clients,
            commits=server.version,
            handed_over=server.trainer.handed_over,
        ),
        never_equipped=server.never_equipped,
        faulty_personal=server.private_parts.faulty,
        away_share=away_share,
        batteries=batteries,
    )


def on_processors(info: RunInfo, executor: Executor | None) -> RunInfo:
    """Complete `run.json` with the kinds of processors that work, and a word if there are several."""
    processors = {} if executor is None else executor.processors()
    return replace(info, processors=processors, mixed=MIXED if len(processors) > 1 else "")


def write_report(run: Run) -> None:
    """Write `report.html` into the folder of a run; one that lives in memory has none."""
    if run.folder is not None:
        from fedsim.report import write

        write([run], run.folder / "report.html")
