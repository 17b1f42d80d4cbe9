"""The tables of README.md, made from `results/*.json`: `python -m benchmarks readme`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from benchmarks import goals
from benchmarks.harness import HERE, number, said, stored

README = HERE / "README.md"
_PLACE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

Found = dict[str, Any]


def write() -> None:
    """Bring the README in step with the results."""
    README.write_text(rendered(README.read_text(encoding="utf-8")), encoding="utf-8")


def rendered(text: str) -> str:
    """Return a README with every table made anew."""
    return _PLACE.sub(lambda m: f"{m[1]}{body(m[2])}\n{m[3]}", text)


def body(name: str) -> str:
    """Return one table with its footing: machine, date, checks."""
    if name == "goals":
        return "\n".join(goals.table())
    found = stored(name)
    if found is None:
        return f"Not measured yet: `python -m benchmarks {name}`."
    return "\n".join([*TABLES[name](found), "", *footing(found)])


def footing(found: Found) -> list[str]:
    """Return when and where it was measured, what was checked, and who was missing."""
    m, others = found["machine"], found["others_cores"]
    revision = f"; fedsim at {found['revision']}" if found.get("revision") else ""
    lines = [
        (
            f"Measured {found['date']} in {found['took_s']:.0f} s on {m['cpu']}, {m['cores']} cores, "
            f"{m['memory_gib']:g} GiB, {m['system']}; Python {m['python']}, torch {m['torch']}, "
            f"transformers {m['transformers']}, peft {m['peft']}, ray {m['ray']}{revision}."
        ),
    ]
    if others["median"] is not None:
        what = f"Others used {others['median']:.2f} cores (median of the looks between runs; most {others['max']:.2f})"
        lines.append(f"{what}." if found["quiet"] else f"**The machine was not quiet.** {what}.")
    for check in found["checks"]:
        lines.append(f"{'Held' if check['ok'] else '**Did not hold**'}: {check['what']} ({check['seen']}).")
    lines += [f"Missing: {name}: {why}." for name, why in found["missing"].items()]
    return [f"* {line}" for line in lines]


def w1(found: Found) -> list[str]:
    """Return W1's contestants, their time, start-up and sum over the adapter."""
    values = found["values"]
    head = "| what | ms per client update | over the floor | whole run, 60 updates | sum of abs(adapter) |"
    lines = [head, "|---|---|---|---|---|"]
    floor = values["w1.ms.stock_2x1"]["median"]
    for name, words in found["about"]["said"].items():
        ms, whole = values[f"w1.ms.{name}"], values[f"w1.whole_run_s.{name}"]
        total = values[f"w1.checksum.{name}"]["median"]
        over = f"{ms['median'] / floor:.2f}"
        lines.append(f"| {words} | {said(ms)} | {over} | {number(whole['median'])} s | {total:.4f} |")
    lines += ["", "Ratios within a repetition:", ""]
    words = {
        "ratio_to_floor": "fedsim over the floor",
        "flower_over_us": "Flower over fedsim",
        "pfl_over_us": "pfl-research over fedsim",
        "sequential_over_us": "fedsim one by one over fedsim batched",
        "flower_over_floor": "Flower over the floor",
        "pfl_over_floor": "pfl-research over the floor",
    }
    return lines + [f"* {w}: {said(values[f'w1.{k}'])}" for k, w in words.items() if f"w1.{k}" in values]


def small(found: Found) -> list[str]:
    """Return stock PEFT's time and fedsim's gain by K, for every size of client."""
    values, about = found["values"], found["about"]
    lines = [
        "| hidden, layers, batch, tokens | stock PEFT [ms] | "
        + " | ".join(f"K = {k}" for k in about["ks"])
        + " |",
        "|---" * (2 + len(about["ks"])) + "|",
    ]
    for key in about["grid"]:
        gains = []
        for k in about["ks"]:
            ratio = values.get(f"small.{key}.stock_over.k{k}")
            gains.append("" if ratio is None else f"{number(ratio['median'])}x")
        name = ", ".join(re.findall(r"\d+", key))
        lines.append(f"| {name} | {said(values[f'small.{key}.ms.stock'])} | {' | '.join(gains)} |")
    return lines


def midsized(found: Found) -> list[str]:
    """Return stock PEFT's time a visit and a token, and fedsim's by K, for both shapes."""
    values, about = found["values"], found["about"]
    lines = ["| model | who | ms per visit | us per token | over stock PEFT |", "|---|---|---|---|---|"]
    for name in about["worlds"]:
        for who in ("stock", *(f"k{k}" for k in about["ks"])):
            stem, words = f"midsized.{name}", "stock PEFT" if who == "stock" else f"fedsim, K = {who[1:]}"
            over = values.get(f"{stem}.stock_over.{who}")
            cells = [said(values[f"{stem}.ms.{who}"]), said(values[f"{stem}.us_per_token.{who}"])]
            lines.append(f"| {name} | {words} | {' | '.join(cells)} | {'' if over is None else said(over)} |")
    return lines


def chats(found: Found) -> list[str]:
    """Return stock PEFT's time a visit over chats of unequal length, and what fedsim gains on it by K, padded and packed."""
    values, about = found["values"], found["about"]
    names = [f"k{k}" for k in about["ks"]]
    lines = ["| rows | stock PEFT |" + "".join(f" K = {k} |" for k in about["ks"])]
    lines.append("|---" * (2 + len(names)) + "|")
    for rows in ("padded", "packed"):
        gains = (said(values[f"chats.{rows}.stock_over.{who}"]) for who in names)
        lines.append(f"| {rows} | {said(values[f'chats.{rows}.ms.stock'])} | {' | '.join(gains)} |")
    return lines


def families(found: Found) -> list[str]:
    """Return stock PEFT's time a visit by family, and what the swapped and the written-out path gain on it."""
    values = found["values"]
    lines = ["| family | stock PEFT | swapped | written out |", "|---|---|---|---|"]
    for name in found["about"]["families"]:
        gains = (said(values[f"families.{name}.stock_over.{who}"]) for who in ("swapped", "fused"))
        lines.append(f"| {name} | {said(values[f'families.{name}.ms.stock'])} | {' | '.join(gains)} |")
    return lines


def trivial(found: Found) -> list[str]:
    """Return milliseconds per trivial update by clients a round."""
    values, about = found["values"], found["about"]
    lines = ["| clients a round | " + " | ".join(about["said"].values()) + " |", "|---" * 4 + "|"]
    for clients in about["clients"]:
        row = [values.get(f"trivial.{name}_{clients}") for name in about["said"]]
        lines.append(f"| {clients:,} | " + " | ".join("" if v is None else said(v) for v in row) + " |")
    return lines


def aggregate(found: Found) -> list[str]:
    """Return fedsim's and the loop's time."""
    values, about = found["values"], found["about"]
    what = f"{about['adapters']:,} adapters of {about['bytes_each']:,} bytes, {about['tensors']} tensors each"
    return [
        f"{what}; fedsim's sum on {about['threads']} threads, the loop on one (on more it is no faster).",
        "",
        "| what | time |",
        "|---|---|",
        f"| fedsim's `fedit`, float64 sums in a fixed order | {said(values['aggregate.fedsim_ms'])} |",
        f"| a loop over dictionaries of float32 tensors | {said(values['aggregate.dict_loop_ms'])} |",
    ]


def memory(found: Found) -> list[str]:
    """Return the largest memory of every process tree."""
    values, about = found["values"], found["about"]
    lines = ["| what | largest PSS of the process tree |", "|---|---|"]
    for name, words in about["said"].items():
        value = values.get(f"memory.w1_mib.{name}")
        if value is not None:
            mib = f"{number(value['median'])} MiB" if value["n"] == 1 else said(value)
            lines.append(f"| {words} | {mib} |")
    for clients in (about["few"], about["many"]):
        value = values[f"memory.clients_{clients}_mib"]
        lines.append(f"| fedsim, Ray, 2 workers, {clients:,} clients of one text | {said(value)} |")
    return [*lines, "", f"Growth: {said(values['memory.growth_mib'])}."]


def startup(found: Found) -> list[str]:
    """Return seconds from the command to the first update."""
    values = found["values"]
    lines = ["| what | command to first update | CPU seconds of its processes |", "|---|---|---|"]
    for name, words in found["about"]["said"].items():
        cpu = values.get(f"startup.{name}_cpu_s")
        cells = f"{said(values[f'startup.{name}_s'])} | {'' if cpu is None else said(cpu)}"
        lines.append(f"| {words.replace(', whole run', '')} | {cells} |")
    if "startup.help_s" in values:
        lines.append(f"| `fedsim --help`, to its end | {said(values['startup.help_s'])} | |")
    return lines


def growth(found: Found) -> list[str]:
    """Return the three curves as rows."""
    values, about = found["values"], found["about"]
    lines = []
    for curve, by in (("rank", "rank"), ("k_w1", "K"), ("k_small", "K"), ("width", "hidden size")):
        points = sorted(
            {int(key.rpartition(".")[2]) for key in values if key.startswith(f"growth.{curve}.ms.fedsim.")}
        )
        lines += [f"{about[curve]}, by {by} [ms per update of {about['steps']} steps]:", ""]
        lines += ["| | " + " | ".join(map(str, points)) + " |", "|---" * (1 + len(points)) + "|"]
        for who, words in (("fedsim", "fedsim"), ("stock", "stock PEFT")):
            row = [values.get(f"growth.{curve}.ms.{who}.{x}") for x in points]
            if any(row):
                cells = " | ".join("" if v is None else number(v["median"]) for v in row)
                lines.append(f"| {words} | {cells} |")
        lines.append("")
    return lines[:-1]


def engine(found: Found) -> list[str]:
    """Return what a timeline takes, by world and number of clients."""
    values, about = found["values"], found["about"]
    lines = ["| world | clients | whole program | visits a second | events a second | most memory |"]
    lines.append("|---|---|---|---|---|---|")
    worlds = dict.fromkeys(key.split(".")[1] for key in values)
    planned = []
    for world, clients in ((world, clients) for world in worlds for clients in about["sizes"]):
        if world == "round":
            planned.append(f"{clients:,}: {said(values[f'engine.round.{clients}.planned_s'])}")
            continue
        if f"engine.{world}.{clients}.wall_s" not in values:
            continue
        cells = (values[f"engine.{world}.{clients}.{what}"] for what in ENGINE)
        lines.append(f"| {world} | {clients:,} | " + " | ".join(map(said, cells)) + " |")
    lines += ["", f"A synchronous round of every hundredth client, planned: {'; '.join(planned)}."]
    return [*lines, "", "![time](plots/engine_time.svg)", "![memory](plots/engine_memory.svg)"]


ENGINE = ("wall_s", "visits_per_s", "events_per_s", "peak_mib")


def profile(found: Found) -> list[str]:
    """Return the shares of a client batch, and how far it is from its GEMMs alone."""
    values = found["values"]
    ms, limit = values["profile.ms_per_update"], values["profile.gemm_limit_ms"]
    lines = [
        (
            f"{said(ms)} per update on one thread, in batches of {found['about']['k']}; its matrix products alone "
            f"({number(values['profile.gemm_gflop']['median'])} GFLOP at the rate measured here for exactly these "
            f"shapes, attention apart) would take {said(limit)}."
        ),
        "",
        "| where | share of the profiled time |",
        "|---|---|",
    ]
    shares = {k.removeprefix("profile.share."): v["median"] for k, v in values.items() if ".share." in k}
    return lines + [f"| {name.replace('_', ' ')} | {100 * share:.1f} % |" for name, share in shares.items()]


def gpu(found: Found) -> list[str]:
    """Return updates per second and what the device was doing."""
    values, about = found["values"], found["about"]
    lines = [
        f"{about.get('gpu', about['device'])}.",
        "",
        "| backbone | who | updates per s | over stock PEFT | utilisation | kernels' share | memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, value in values.items():
        _, world, dtype, kind, *who = key.split(".")
        if kind != "per_s":
            continue
        stem = f"gpu.{world}.{dtype}"
        over = values.get(f"{stem}.over_stock.{who[0]}")
        others = [
            values.get(f"{stem}.{who[0]}.{what}") for what in ("utilisation", "kernel_share", "peak_gib")
        ]
        shown = [
            "" if v is None else form(v["median"])
            for v, form in zip(others, ("{:.0f} %".format, "{:.0%}".format, "{:.2f} GiB".format), strict=True)
        ]
        cells = [f"{world}, {dtype}", who[0], said(value), "" if over is None else said(over), *shown]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def pace(found: Found) -> list[str]:
    """Return virtual hours in a real hour, and where the real time of one process goes."""
    values = found["values"]
    runs = found["about"]["runs"]
    lines = ["| run | virtual hours in a real hour | real time | real time an update |", "|---|---|---|---|"]
    for run in runs:
        cells = (
            said(values[f"pace.{run}.{name}"]) for name in ("virtual_h_per_h", "real_s", "ms_per_update")
        )
        lines.append(f"| {run.replace('.', ', ')} | {' | '.join(cells)} |")
    alone = [run for run in runs if run.endswith(".inline")]
    lines += [
        "",
        "| at | " + " | ".join(run.replace(".", ", ") for run in alone) + " |",
        "|---" * (1 + len(alone)) + "|",
    ]
    for part in found["about"]["parts"]:
        shares = (values[f"pace.{run}.share.{part}"]["median"] for run in alone)
        lines.append(f"| {part} | " + " | ".join(f"{100 * share:.1f} %" for share in shares) + " |")
    return lines


def survival(found: Found) -> list[str]:
    """Return what checkpoints cost whole runs, and what a resume costs."""
    values, about = found["values"], found["about"]
    lines = [
        "| run | " + " | ".join(about["said"].values()) + " | as by default, over none |",
        "|---" * 5 + "|",
    ]
    for world in about["worlds"]:
        row = [said(values[f"survival.{world}.{mode}_s"]) for mode in about["said"]]
        lines.append(f"| {world} | {' | '.join(row)} | {said(values[f'survival.{world}.on_over_off'])} |")
    resumes = [f"{n:,} visits: {said(values[f'survival.resume_{n}_s'])}" for n in about["visits"]]
    slope = said(values["survival.replay_s_per_1000"])
    return [
        *lines,
        "",
        f"A resume before it trains, after {'; '.join(resumes)}; {slope} more for 1,000 visits more.",
    ]


def tables(found: Found) -> list[str]:
    """Return what each step with the tables of a long run takes."""
    values = found["values"]
    name = next(iter(values)).partition(".")[0]
    lines = ["| visits | step | CPU seconds | peak memory of the process |", "|---|---|---|---|"]
    steps = ("write", "write.close", "load", "verify", "report", "frame")
    for visits in found["about"]["sizes"]:
        for step in steps:
            key = f"{name}.{visits}.{step}" + ("_" if step == "write.close" else ".")
            word = "close" if step == "write.close" else step
            lines.append(
                f"| {visits:,} | {word} | {said(values[f'{key}cpu_s'])} | {said(values[f'{key}mib'])} |"
            )
    return lines


def personal(found: Found) -> list[str]:
    """Return what a run takes whose clients keep an adapter each."""
    values = found["values"]
    lines = [
        "| clients | most memory in a tenth of the run | until the last commit | with the closing | what they keep, on disk | CPU |"
    ]
    lines.append("|---|---|---|---|---|---|")
    for clients in found["about"]["sizes"]:
        names = ("early_mib", "late_mib", "peak_mib", "kept_mib", "cpu_s")
        cells = (said(values[f"personal.{clients}.{name}"]) for name in names)
        lines.append(f"| {clients:,} | " + " | ".join(cells) + " |")
    return lines


TABLES: dict[str, Callable[[Found], list[str]]] = {
    "w1": w1,
    "small": small,
    "trivial": trivial,
    "aggregate": aggregate,
    "memory": memory,
    "midsized": midsized,
    "families": families,
    "chats": chats,
    "startup": startup,
    "growth": growth,
    "engine": engine,
    "profile": profile,
    "pace": pace,
    "survival": survival,
    "personal": personal,
    "tables": tables,
    "tables_long": tables,
    "gpu": gpu,
}
