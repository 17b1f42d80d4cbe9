"""The commands about this installation: what is here, and what an experiment may hold."""

from __future__ import annotations

from typing import Annotated

import typer


def doctor(
    ray: Annotated[bool, typer.Option("--ray", help="Really start a small local Ray and stop it.")] = False,
) -> int:
    """Say what is installed and what fits here."""
    from fedsim.cli.doctor import examine

    findings = examine(start_ray=ray)
    for finding in findings:
        print(f"{finding.state:<4}  {finding.text}")
        if finding.fix:
            print(f"      fix: {finding.fix}")
    return 3 if any(finding.state == "bad" for finding in findings) else 0


def schema() -> None:
    """Print an experiment's JSON schema."""
    import json

    from fedsim.config.experiment import Experiment
    from fedsim.config.reference.schema import json_schema

    print(json.dumps(json_schema(Experiment), indent=2))
