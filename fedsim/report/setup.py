"""What was run, in plain sentences: the configuration and the facts of `run.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedsim.records import quantities
from fedsim.records.comparisons import seeds_of
from fedsim.records.info import Charged, RunInfo
from fedsim.records.quantities import said
from fedsim.records.resolved import tables_of
from fedsim.records.run import Run
from fedsim.report.parts import Section, Table, listing, plural


def section(run: Run) -> Section:
    """Return the section that says what was run."""
    facts = [(name, text) for name, text in _facts(run) if text]
    tables = [Table(("", ""), facts)]
    if run.info.resolved is not None:
        groups = run.info.resolved.table()
        head = ("Class of devices", *list(groups[0])[1:])
        tables.append(Table(head, [[*group.values()] for group in groups], "Clients that were drawn"))
    if run.info.task:
        rows = [
            (_words(name), _value(name, value))
            for name, value in _flat(run.info.task)
            if value not in (None, "")
        ]
        tables.append(Table(("", ""), rows, "Model and data"))
    return Section("setup", "What was run", tables=tables)


def charge(run: Run) -> str:
    """Return the sentence that a reader of a run with `charge_as` must not miss; empty without it."""
    charged = run.info.charged
    if charged is None or not charged.declared:
        return ""
    return (
        f"Two models take part. What is learned comes from the small model that really trained. Time, "
        f"memory, energy and bytes are charged as for {charged.model} ({charged.params:,} parameters): every "
        f"update counts {said('bytes', charged.adapter_bytes)} on the virtual links, while "
        f"{said('bytes', charged.serialized_adapter_bytes)} of tensors were really serialised."
    )


def _facts(run: Run) -> list[tuple[str, str]]:
    blocks, info = run.experiment, run.info
    personal = _section(blocks, "personal")
    return [
        ("Clients", _population(blocks.get("population", {}))),
        ("Tables", "; ".join(map(str, tables_of(info.population)))),
        ("Online", "" if info.resolved is None else info.resolved.online),
        ("Task", _block(blocks.get("task", {}), skip=("charge_as",))),
        ("Charged as", _block(_section(blocks, "task").get("charge_as") or {})),
        ("Trained", _trained(blocks.get("lora", {}), info.charged)),
        ("Local training", _block(blocks.get("local", {}))),
        ("Server protocol", _block(blocks.get("protocol", {}))),
        ("Aggregation", _block(blocks.get("aggregator", {}))),
        ("Sampling", _block(blocks.get("sampler", {}))),
        ("Network", _block(blocks.get("network", {}))),
        ("Personalisation", "none" if personal.get("kind") == "none" else _block(personal)),
        ("Budget", _budget(blocks.get("budget", {}))),
        ("Seed", _seeds(run)),
        ("Set by other keys", _followed(info)),
        ("Notes", _notes(info)),
        ("Real work", _real(info)),
    ]


def _section(experiment: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    block = experiment.get(name)
    return block if isinstance(block, Mapping) else {}


def _seeds(run: Run) -> str:
    """Return one seed for all, or the three."""
    seeds = seeds_of(run)
    if len(set(seeds)) == 1:
        return str(seeds.training)
    return f"population {seeds.population}, data {seeds.data}, training {seeds.training}"


def _population(block: Mapping[str, Any]) -> str:
    source = f"preset {block['preset']}" if block.get("preset") else f"devices of {block.get('devices')}"
    return f"{block.get('clients', 0):,} of {source}; availability: {block.get('availability')}"


def _followed(info: RunInfo) -> str:
    return "" if info.resolved is None else "; ".join(map(str, info.resolved.followed))


def _notes(info: RunInfo) -> str:
    """Return what was said before the start, beside what stands under model and data."""
    told = info.task.get("notices", ())
    notices = () if info.resolved is None else info.resolved.notices
    return "; ".join(notice for notice in notices if notice not in told)


def _trained(block: Mapping[str, Any], charged: Charged | None) -> str:
    if block.get("full"):
        return "the whole model (full-model FedAvg, no adapters)"
    targets = block.get("targets")
    where = targets if isinstance(targets, str) else listing([str(t) for t in targets or ()])
    text = f"LoRA adapters of rank {block.get('r')}, alpha {block.get('alpha'):g}, on {where}"
    if block.get("depth") or block.get("depth_by", "fixed") != "fixed":
        text += f", in the last layers only (depth by {block.get('depth_by')})"
    if charged is not None and not charged.declared:
        text += f": {charged.adapter_params:,} of {charged.params:,} parameters"
    return text


def _budget(block: Mapping[str, Any]) -> str:
    limits = []
    if block.get("time_s"):
        limits.append(f"{said('time_s', block['time_s'])} of virtual time")
    if block.get("commits"):
        limits.append(plural(block["commits"], "commit"))
    if block.get("up_bytes"):
        limits.append(f"{said('bytes', block['up_bytes'])} of uploads")
    target = block.get("target")
    if isinstance(target, Mapping):
        limits.append(f"{target.get('metric')} {target.get('value')} on {target.get('split')} reached")
    return " or ".join(limits) + (", whichever comes first" if len(limits) > 1 else "")


def _real(info: RunInfo) -> str:
    parts = []
    if info.timeline_only:
        parts.append("none: timeline only")
    elif info.executor:
        parts.append(f"{info.executor}, {plural(info.workers, 'worker')}")
    if info.wall_s is not None:
        parts.append(f"{said('time_s', info.wall_s)} of real time")
    if info.started:
        parts.append(f"started {info.started[:16].replace('T', ' ')} UTC")
    if info.resumed:
        parts.append(f"gone on with {plural(len(info.resumed), 'time')}")
    return "; ".join(parts)


def _block(block: Mapping[str, Any], skip: Sequence[str] = ()) -> str:
    """Return a block of the configuration as `kind: key value, key value`; what is not set is left out."""
    kind, settings = block.get("kind"), _settings(block, skip)
    return f"{kind}: {settings}" if kind and settings else str(kind or settings)


def _settings(block: Mapping[str, Any], skip: Sequence[str] = ()) -> str:
    """Return the settings of a block but for its kind; a block in it stands as `partition dirichlet (alpha 0.3)`."""
    settings = []
    for name, value in block.items():
        if name == "kind" or name in skip or value in (None, "", {}):
            continue
        if not isinstance(value, Mapping):
            settings.append(f"{_words(name)} {_value(name, value)}")
            continue
        inner = _settings(value)
        head = f"{_words(name)} {value['kind']}" if value.get("kind") else _words(name)
        if inner or value.get("kind"):
            settings.append(f"{head} ({inner})" if inner else head)
    return ", ".join(settings)


def _flat(block: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    leaves: list[tuple[str, Any]] = []
    for name, value in block.items():
        if isinstance(value, Mapping):
            leaves += _flat(value, f"{prefix}{name}.")
        else:
            leaves.append((f"{prefix}{name}", value))
    return leaves


def _words(name: str) -> str:
    parts = name.removesuffix(".kind").split(".")
    parts[-1] = parts[-1].removesuffix("_s").removesuffix("_mbps").removesuffix("_bytes")
    return " ".join(parts).replace("_", " ")


def _value(name: str, value: Any) -> str:
    last = name.rsplit(".", maxsplit=1)[-1]
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        if last.endswith("_s"):
            return said("time_s", value)
        if last.endswith("_mbps"):
            return f"{value:g} Mbit/s"
        if last.endswith("bytes"):
            return said("bytes", value)
        whole = isinstance(value, int)
        return f"{value:,}" if whole else f"{value:.4g}" if abs(value) < 1e4 else quantities.number(value)
    if isinstance(value, list | tuple):
        return listing([str(item) for item in value])
    text = str(value)
    return f"{text[:16]}…" if len(text) == 64 and "sha" in name else text
