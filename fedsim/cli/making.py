"""The command `fedsim new`: a commented experiment that runs as it is, and code where there is some."""

from __future__ import annotations

from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from fedsim.cli.arguments import AsJson

TEMPLATES = files("fedsim.cli") / "templates"


class TaskKind(StrEnum):
    """What an experiment may be about."""

    language = "language"
    images = "images"
    torch = "torch"


def new(
    name: Annotated[str, typer.Argument(help="Of the experiment and its file.", show_default=True)] = "mine",
    task: Annotated[TaskKind, typer.Option(help="What is learned.")] = TaskKind.language,
    as_json: AsJson = False,
) -> None:
    """Write a commented experiment that runs as it is."""
    import json

    from fedsim.cli.printing import print_json
    from fedsim.cli.shell import say
    from fedsim.config.experiment import Experiment
    from fedsim.config.reference.schema import json_schema
    from fedsim.errors import ExperimentError, HostError, message
    from fedsim.files.atomic import write_atomically

    stem = name.removesuffix(".yaml")
    if not stem.isidentifier() and (task is TaskKind.torch or not stem.replace("-", "_").isidentifier()):
        fix = "letters, digits and _" if task is TaskKind.torch else "letters, digits, _ and -"
        raise ExperimentError(message("NAME", "cannot name a file here", got=name, fix=fix))
    texts = {Path(f"{stem}.yaml"): f"{task}.yaml"}
    if task is TaskKind.torch:
        texts[Path(f"{stem}.py")] = "torch.py.txt"
    for path in texts:
        if path.exists() or path.is_symlink():
            raise ExperimentError(message(str(path), "exists already", fix="give another name, or remove it"))
    schema = Path("fedsim.json")
    try:
        for path, template in texts.items():
            text = (TEMPLATES / template).read_text(encoding="utf-8").replace("NAME", stem)
            write_atomically(path, text.encode())
        if not schema.exists() and not schema.is_symlink():
            write_atomically(schema, json.dumps(json_schema(Experiment), indent=2).encode())
    except OSError as problem:
        raise HostError(message(str(Path.cwd()), f"cannot be written to ({problem.strerror})")) from problem
    say(f"wrote {', '.join(map(str, texts))}; fedsim.json lets an editor complete it")
    if as_json:
        print_json({"files": list(texts), "schema": schema})
    else:
        print(f"next: fedsim run {stem}.yaml --dry-run")
