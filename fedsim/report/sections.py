"""The sections about what a run reached: each answers one question in words, a figure and a table."""

from __future__ import annotations

from fedsim.errors import FedsimError
from fedsim.metrics.direction import ranks, rises
from fedsim.records import quantities, views
from fedsim.records.quantities import number, percent, said
from fedsim.records.run import Run
from fedsim.report import figures
from fedsim.report.parts import Section, Table, plural
from fedsim.report.style import MOST_POINTS

CHOSEN = (
    "Quote the score at the end: the best of several was chosen by the text or images that it is scored on"
)


def progress(run: Run, metric: str | None) -> Section:
    """How good the model became by its headline metric (None: nothing was scored), and what that took."""
    if metric is None:
        text = "The run was asked for its timeline only: no model was scored."
        if not run.info.timeline_only:
            text = "No model was scored."
        return Section("progress", "How good the model became", [text])
    rows, longest = [], 0
    for split, name in run.scores[["split", "metric"]].drop_duplicates().itertuples(index=False):
        points = views.scored(run, name, split)
        longest = max(longest, len(points) if name == metric else 0)
        best = points.sort_values("value", ascending=not rises(name), kind="stable").iloc[0]
        first, last = points["value"].iloc[0], points["value"].iloc[-1]
        at_best = f"{number(best['value'])} (version {int(best['version'])})" if ranks(name) else "-"
        rows.append((f"{name.replace('_', ' ')}, {split}", number(first), number(last), at_best))
    return Section(
        "progress",
        "How good the model became",
        _of_words(run),
        figures.progress(run, metric),
        f"{metric.replace('_', ' ').capitalize()} against virtual time, against commits and against everything "
        f"uploaded so far, lost uploads included. {'More' if rises(metric) else 'Less'} is better."
        + (f" {MOST_POINTS:,} of {longest:,} scores are drawn." if longest > MOST_POINTS else ""),
        tables=[Table(("metric", "before", "at the end", "best"), rows, CHOSEN)],
    )


def _of_words(run: Run) -> list[str]:
    """Return why a perplexity of words is so much larger than that of tokens, where both were scored."""
    words, tokens = (run.info.task.get(name) for name in ("train_words", "train_tokens"))
    if "word_perplexity" not in set(run.scores["metric"]) or not words or not tokens:
        return []
    ratio = number(tokens / words)
    text = (
        f"A word of this text is {ratio} tokens of this model, so the perplexity of words is about that of tokens to the "
        f"power of {ratio}. It is for comparing models whose tokens differ."
    )
    return [text]


def sentence(run: Run, metric: str) -> str:
    """Return by how much a metric moved, and after what."""
    scores = views.scored(run, metric)
    first, last = scores.iloc[0], scores.iloc[-1]
    if len(scores) < 2:
        return f"Test {metric.replace('_', ' ')} is {number(last['value'])}; it was scored once."
    verb = "rose" if last["value"] > first["value"] else "fell"
    return (
        f"Test {metric.replace('_', ' ')} {verb} from {number(first['value'])} to {number(last['value'])} in "
        f"{said('time_s', last['time_s'])} of virtual time, {plural(int(last['version']), 'commit')} and "
        f"{said('bytes', last['up_bytes'])} of uploads."
    )


def devices(run: Run) -> Section:
    """The devices themselves."""
    text = "Speed is effective LoRA training speed, not a data sheet's peak."
    figure = figures.devices(run)
    return Section("devices", "The devices", [text], figure, "One point a client; both axes are logarithmic.")


def uplink(run: Run) -> Section:
    """What was uploaded, against full-model FedAvg."""
    title = "What was uploaded, against full-model FedAvg"
    try:
        sums = views.uplink_reduction(run).iloc[0]
    except FedsimError as problem:
        return Section("uplink", title, [f"Not known: {problem}."])
    uploads, each, full = int(sums["uploads"]), int(sums["adapter_params"]), int(sums["params"])
    whole = bool(run.experiment.get("lora", {}).get("full"))
    if not uploads:
        return Section("uplink", title, ["No upload landed."])
    formula = ["bytes = T · |S| · N · 4      T · |S| updates landed, N parameters of 4 bytes (float32) each"]
    formula.append(f"full-model FedAvg: {uploads:,} · {full:,} · 4 = {said('bytes', sums['full_bytes'])}")
    name = "this run, N_total" if whole else "this run, N_LoRA"
    if int(sums["adapter_bytes"]) == uploads * each * 4:
        formula.append(f"{name}: {uploads:,} · {each:,} · 4 = {said('bytes', sums['adapter_bytes'])}")
    else:
        formula.append(f"this run, as sent: {said('bytes', sums['adapter_bytes'])} in {uploads:,} uploads")
    formula.append(f"reduction: 1 − {quantities.number(sums['adapter_bytes'] / sums['full_bytes'])} = {percent(sums['reduction'])}")  # fmt: skip
    than = f"{percent(sums['reduction'])} less" if sums["reduction"] > 0 else "no less"
    text = (
        f"{plural(uploads, 'upload')} landed with {said('bytes', sums['adapter_bytes'])}; full-model FedAvg with the "
        f"same schedule would have sent {said('bytes', sums['full_bytes'])}: this run sent {than}."
    )
    if sums["lost_up_bytes"]:
        text += f" Uploads that did not land took another {said('bytes', sums['lost_up_bytes'])}."
    return Section(
        "uplink",
        title,
        [text],
        figures.uplink(run),
        "Uploads that landed, to one scale.",
        formula=formula,
        tables=[_bytes(run)],
    )


def _bytes(run: Run) -> Table:
    visits = run.columns("visits")
    rows = [
        (
            words,
            f"{said('bytes', int(visits[name].sum()))} ({int(visits[name].sum()):,} B)",
            f"{said('bytes', int(visits[real].sum()))} ({int(visits[real].sum()):,} B)",
        )
        for words, name, real in (
            ("uploaded", "up_bytes", "serialized_up_bytes"),
            ("downloaded", "down_bytes", "serialized_down_bytes"),
        )
    ]
    caption = (
        "All visits, lost ones included: what the virtual links carried, and the tensors really serialised"
    )
    return Table(("", "charged", "really serialised"), rows, caption)
