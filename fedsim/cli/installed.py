"""The commands about this installation: what is here, and what an experiment may hold."""

from __future__ import annotations

from typing import Annotated

import typer

from fedsim.cli.arguments import AsJson


def doctor(
    ray: Annotated[bool, typer.Option("--ray", help="Really start a small local Ray and stop it.")] = False,
    as_json: AsJson = False,
) -> int:
    """Say what is installed and what fits here."""
    from fedsim.cli.doctor import examine
    from fedsim.cli.printing import print_json

    findings = examine(start_ray=ray)
    ready = not any(finding.state == "bad" for finding in findings)
    if as_json:
        print_json({"ready": ready, "findings": findings})
        return 0 if ready else 3
    for finding in findings:
        print(f"{finding.state:<4}  {finding.text}")
        if finding.fix:
            print(f"      fix: {finding.fix}")
    return 0 if ready else 3


def schema() -> None:
    """Print an experiment's JSON schema."""
    import json

    from fedsim.config.experiment import Experiment
    from fedsim.config.reference.schema import json_schema

    print(json.dumps(json_schema(Experiment), indent=2))
