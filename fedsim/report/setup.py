"""What was run, in plain sentences: the configuration and the facts of `run.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedsim.records import quantities
from fedsim.records.quantities import said
from fedsim.records.run import Run
from fedsim.report.parts import Section, Table, listing


def section(run: Run) -> Section:
    """Return the section that says what was run."""
    facts = [(name, text) for name, text in _facts(run) if text]
    tables = [Table(("", ""), facts)]
    if task := run.info.get("task"):
        rows = [(_words(name), _value(name, value)) for name, value in _flat(task) if value not in (None, "")]
        tables.append(Table(("", ""), rows, "Model and data"))
    return Section("setup", "What was run", tables=tables)


def charge(run: Run) -> str:
    """Return the sentence that a reader of a run with `charge_as` must not miss; empty without it."""
    facts = run.info.get("charged") or {}
    if not facts.get("declared"):
        return ""
    return (
        f"Two models take part. What is learned comes from the small model that really trained. Time, "
        f"memory, energy and bytes are charged as for {facts['model']} ({facts['params']:,} parameters): every "
        f"update counts {said('bytes', facts['adapter_bytes'])} on the virtual links, while "
        f"{said('bytes', facts['serialized_adapter_bytes'])} of tensors were really serialised."
    )


def _facts(run: Run) -> list[tuple[str, str]]:
    e, info = run.experiment, run.info
    return [
        ("Clients", _population(e.get("population", {}))),
        ("Task", _block(e.get("task", {}), skip=("charge_as",))),
        ("Charged as", _block(_section(e, "task").get("charge_as") or {})),
        ("Trained", _trained(e.get("lora", {}), info.get("charged") or {})),
        ("Local training", _block(e.get("local", {}))),
        ("Server protocol", _block(e.get("protocol", {}))),
        ("Aggregation", _block(e.get("aggregator", {}))),
        ("Sampling", _block(e.get("sampler", {}))),
        ("Network", _block(e.get("network", {}))),
        (
            "Personalisation",
            "none" if _section(e, "personal").get("kind") == "none" else _block(_section(e, "personal")),
        ),
        ("Budget", _budget(e.get("budget", {}))),
        ("Seed", str(info.get("seed", ""))),
        ("Real work", _real(info)),
    ]


def _section(experiment: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = experiment.get(name)
    return found if isinstance(found, Mapping) else {}


def _population(block: Mapping[str, Any]) -> str:
    source = f"preset {block['preset']}" if block.get("preset") else f"devices of {block.get('devices')}"
    return f"{block.get('clients', 0):,} of {source}; availability: {block.get('availability')}"


def _trained(block: Mapping[str, Any], charged: Mapping[str, Any]) -> str:
    if block.get("full"):
        return "the whole model (full-model FedAvg, no adapters)"
    targets = block.get("targets")
    where = targets if isinstance(targets, str) else listing([str(t) for t in targets or ()])
    text = f"LoRA adapters of rank {block.get('r')}, alpha {block.get('alpha'):g}, on {where}"
    if charged and not charged.get("declared"):
        text += f": {charged['adapter_params']:,} of {charged['params']:,} parameters"
    return text


def _budget(block: Mapping[str, Any]) -> str:
    limits = []
    if block.get("time_s"):
        limits.append(f"{said('time_s', block['time_s'])} of virtual time")
    if block.get("commits"):
        limits.append(f"{block['commits']:,} commits")
    if block.get("up_bytes"):
        limits.append(f"{said('bytes', block['up_bytes'])} of uploads")
    return " or ".join(limits) + (", whichever comes first" if len(limits) > 1 else "")


def _real(info: Mapping[str, Any]) -> str:
    parts = []
    if info.get("timeline_only"):
        parts.append("none: timeline only")
    elif info.get("executor"):
        workers = info.get("workers")
        parts.append(f"{info['executor']}, {workers} worker{'' if workers == 1 else 's'}")
    if info.get("wall_s") is not None:
        parts.append(f"{said('time_s', info['wall_s'])} of real time")
    if info.get("started"):
        parts.append(f"started {str(info['started'])[:16].replace('T', ' ')} UTC")
    return "; ".join(parts)


def _block(block: Mapping[str, Any], skip: Sequence[str] = ()) -> str:
    """Return a block of the configuration as `kind: key value, key value`; what is not set is left out."""
    kind = block.get("kind")
    found = [
        f"{_words(name)} {_value(name, value)}"
        for name, value in _flat(block)
        if name != "kind" and name.split(".")[0] not in skip and value not in (None, "")
    ]
    settings = ", ".join(found)
    return f"{kind}: {settings}" if kind and settings else str(kind or settings)


def _flat(block: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for name, value in block.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{prefix}{name}.")
        else:
            found.append((f"{prefix}{name}", value))
    return found


def _words(name: str) -> str:
    last = name.rsplit(".", maxsplit=1)[-1]
    if name.endswith(".kind"):
        last = name.split(".")[-2]
    return last.removesuffix("_s").removesuffix("_mbps").removesuffix("_bytes").replace("_", " ")


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
