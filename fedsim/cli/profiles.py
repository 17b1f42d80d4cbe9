"""The commands of `fedsim profiles`: lists, tables, checks, imports and measurements of devices."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fedsim.cli.arguments import AsJson, Changes
from fedsim.cli.shell import error, importable

if TYPE_CHECKING:
    from fedsim.clock.plan import Plan
    from fedsim.devices.population import Population

profiles = typer.Typer(no_args_is_help=True, help="Look at device, link and availability tables.")


@profiles.command("list", epilog="Example: fedsim profiles list")
def profiles_list(as_json: AsJson = False) -> None:
    """List the population presets."""
    from fedsim.cli.printing import print_json
    from fedsim.devices.presets import preset_names

    if as_json:
        print_json({"presets": list(preset_names())})
    else:
        print("\n".join(preset_names()))


@profiles.command("show", epilog="Example: fedsim profiles show world_2026")
def profiles_show(
    preset: Annotated[str, typer.Argument(metavar="PRESET|EXP.yaml", show_default=False)],
    as_json: AsJson = False,
) -> None:
    """Show what a preset draws from.

    Speeds and links by class, who runs which system on which network, the figures that shares of a region follow from, which tables
    it is from and how good its times are.
    Of an experiment's file, the population that it draws, and who is online.
    """
    from fedsim.cli.printing import listing
    from fedsim.devices import population, summary
    from fedsim.errors import ProfileError, message

    if Path(preset).suffix in (".csv", ".parquet"):
        fix = f"fedsim profiles check {preset}; or name it in an experiment, and show that: fedsim profiles show my.yaml"
        raise ProfileError(message(preset, "is a table, and no preset", fix=fix))
    if Path(preset).suffix not in (".yaml", ".yml"):
        figures = summary.cited(preset)
        drawn = population.draw_devices(preset, summary.SHOWN, seed=0)
        if as_json:
            _show_json(drawn, {"cited": figures})
        else:
            _show(drawn, [listing(figures)] if figures else [])
        return
    from fedsim.checks import gate, resolved
    from fedsim.cli.printing import table

    importable(Path(preset).parent)
    experiment = gate.read(preset)
    drawn = population.draw(experiment.population, experiment.population_seed)
    drawn = population.with_software(drawn, experiment.compute, experiment.population_seed)
    facts = resolved.of_population(drawn)
    if as_json:
        _show_json(drawn, {"drawn": facts})
        return
    hours = summary.by_hour(drawn.availability.plain)
    _show(drawn, [table(facts.table()), f"online: {facts.online}", *([hours] if hours else [])])


def _show_json(drawn: Population, facts: dict[str, object]) -> None:
    """Print a population, and what else is known of it, as one JSON object."""
    from fedsim.cli.printing import print_json
    from fedsim.devices import summary

    shares = {"classes": summary.summary(drawn), "systems": summary.shares(drawn)}
    print_json({**shares, **facts, "tables": summary.tables(drawn), "trust": summary.trust(drawn)})


def _show(drawn: Population, facts: list[str]) -> None:
    """Print a population, and what else is known of it."""
    from fedsim.cli.printing import listing
    from fedsim.devices import summary

    systems = summary.shares(drawn)
    parts = [listing(summary.summary(drawn)), *([listing(systems)] if systems else []), *facts]
    print("\n".join([*parts, summary.tables(drawn), summary.trust(drawn)]))


@profiles.command("new", epilog="Example: fedsim profiles new hardware --out my-devices.csv")
def profiles_new(
    kind: Annotated[str, typer.Argument(metavar="KIND", show_default=False)],
    out: Annotated[Path | None, typer.Option(help="The table to write.", show_default=False)] = None,
) -> None:
    """Begin a table of your own.

    KIND is devices, hardware, networks, windows, rates, speeds, stacks or regions. The template has typical values, and says above them
    what every column means; it passes `fedsim profiles check`.
    """
    from fedsim.devices.schemas.template import template
    from fedsim.runs import calibrate

    text = template(kind)
    if out is None:
        print(text, end="")
        return
    calibrate.write(text, out)
    print(f"written: {out}")


@profiles.command("calibrate", epilog="Example: fedsim profiles calibrate --out my-device.csv")
def profiles_calibrate(
    task: Annotated[
        Path | None,
        typer.Option(metavar="EXP.yaml", help="Whose task to train [default: the built-in model and text]."),
    ] = None,
    changes: Changes = None,
    name: Annotated[str, typer.Option(help="Name of the row.")] = "this-machine",
    like: Annotated[
        str, typer.Option(metavar="DEVICE", help="Class, power and battery, which are not measured.")
    ] = "laptop-mainstream",
    quota: Annotated[
        float | None,
        typer.Option(
            min=0.001, max=1.0, help="The CPU quota that this process runs under.", show_default=False
        ),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Visits to time.")] = 7,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each.")] = 4,
    out: Annotated[Path | None, typer.Option(help="The table to write.", show_default=False)] = None,
    stacks: Annotated[
        Path | None,
        typer.Option(
            help="Write the software as a table of stacks, and --out as hardware.", show_default=False
        ),
    ] = None,
) -> None:
    """Measure this machine at the real task.

    Trains on one thread with batches of three sizes. Prints a row of a device table with the speed of the first, and the law that
    they tell; with --stacks the machine as hardware and its software as a stack, for population.devices and compute.stacks.
    """
    from fedsim.runs import calibrate, measured_stack, row_names

    for path in (out, stacks):
        if path is not None:
            calibrate.refuse_existing(path)
    row_names.like_row("devices.csv" if stacks is None else "devices_2026.csv", like)
    row_names.refuse_name(name, of_a_stack=stacks is not None)
    plan = _plan_of(task, changes or ())
    measured = measured_stack.measure_batches(plan, repeats=repeats, steps=steps, quota=quota is not None)
    if stacks is None:
        device = calibrate.table([calibrate.row(measured[0], name, like, quota)])
        print(device, end="")
        if measured[0].overhead_s:
            gain = measured[0].gain_without_overhead
            print(f"# or compute.step_overhead_s: {measured[0].overhead_s:.3g} and the speeds x {gain:.3g}")
    else:
        peak = measured_stack.product_flops_per_s()
        device = measured_stack.hardware_table(measured[0], name, like, peak, quota)
        stack = measured_stack.stack_table(measured, name, peak)
        print(f"{device}{stack}", end="")
        calibrate.write(stack, stacks)
    print(f"# {measured_stack.told(measured_stack.machine_law(measured))}")
    if out is not None:
        calibrate.write(device, out)


@profiles.command("contribute", epilog="Example: fedsim profiles contribute --out my-machine.csv")
def profiles_contribute(
    task: Annotated[
        Path | None,
        typer.Option(metavar="EXP.yaml", help="Whose task to train [default: the built-in model and text]."),
    ] = None,
    changes: Changes = None,
    hardware: Annotated[
        str | None, typer.Option(help="Name of the device [default: the processor's].", show_default=False)
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Visits to time.")] = 7,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each.")] = 4,
    out: Annotated[Path | None, typer.Option(help="The table to write.", show_default=False)] = None,
) -> None:
    """Measure this machine as rows to send.

    Trains on one thread with batches of three sizes, prints a row each as `hetero_profiles/measurements` has them, and the law
    that they tell: speed with many tokens, and launch cost of a layer.
    """
    from fedsim.runs import calibrate, measured_stack

    if out is not None:
        calibrate.refuse_existing(out)
    plan = _plan_of(task, changes or ())
    timed = measured_stack.measure_batches(plan, repeats=repeats, steps=steps)
    name = hardware or calibrate.processor()
    text = calibrate.measurements([calibrate.measurement(plan, one, name) for one in timed])
    print(text, end="")
    print(f"# {measured_stack.told(measured_stack.machine_law(timed))}")
    if out is not None:
        calibrate.write(text, out)


def _plan_of(task: Path | None, changes: Sequence[str]) -> Plan:
    """Return what is measured: the task of a file, or the built-in one."""
    from fedsim.checks import gate
    from fedsim.config import loading as config
    from fedsim.runs.calibrate import default

    if task is None:
        experiment = config.changed(default(), changes)
    else:
        importable(task.parent)
        experiment = gate.read(task, changes)
    with config.naming(experiment, str(task or "calibrate")):
        return gate.prepared(experiment)


@profiles.command("check", epilog="Example: fedsim profiles check my-devices.csv")
def profiles_check(
    file: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)], as_json: AsJson = False
) -> int:
    """Check a table of your own.

    Devices, networks or availability windows; problems are named by row.
    """
    from fedsim.cli.printing import print_json
    from fedsim.devices.table_checks import check

    problems = check(file)
    if as_json:
        print_json({"table": file, "ok": not problems, "problems": list(map(str, problems))})
        return 2 if problems else 0
    for problem in problems:
        error(problem)
    if not problems:
        print("ok")
    return 2 if problems else 0
