"""The files in deploy/: valid for the programs that read them, and true of this fedsim; what docs/cluster.md shows works."""

import json
import os
import re
import shlex
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import jsonschema
import pytest
import yaml
from typer.main import get_command

import fedsim
from fedsim.checks.gate import admit
from fedsim.cli.app import app

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
KUBERAY = json.loads((ROOT / "tests" / "worlds" / "kuberay_rayjob.json").read_text())
LAUNCHER = json.loads((Path(find_spec("ray").origin).parent / "autoscaler" / "ray-schema.json").read_text())


def text(name):
    return (DEPLOY / name).read_text(encoding="utf-8")


def manifests():
    return {m["kind"]: m for m in yaml.safe_load_all(text("kuberay-rayjob.yaml"))}


def pinned(package):
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith(f"{package}=="))


def options_of(command):
    return {name for option in get_command(app).commands[command].params for name in option.opts}


def fedsim_commands(words):
    """(command, its options) of every `fedsim ...` in some shell text."""
    for line in re.findall(r"(?<![\w:/.-])fedsim ((?:run|sweep|resume|doctor|demo)\b[^`'\"\n)]*)", words):
        command, *rest = shlex.split(line, comments=True)
        yield command, [word for word in rest if re.fullmatch(r"-s|--[a-z-]+", word)]


def test_every_file_is_on_the_page():
    named = set(re.findall(r"\(\.\./deploy/([\w.-]+)\)", PAGE))

    assert named == {p.name for p in DEPLOY.iterdir()} - {"Dockerfile.dockerignore"}


@pytest.mark.parametrize("name", ["ray-cluster.yaml", "kuberay-rayjob.yaml", "slurm.sh", "Dockerfile"])
def test_the_commands_that_they_give_exist(name):
    found = [*fedsim_commands(text(name)), *fedsim_commands(PAGE)]

    assert found
    assert [(command, o) for command, options in found for o in options if o not in options_of(command)] == []


# the cluster launcher ---------------------------------------------------------------------------


def test_the_cluster_is_valid_by_ray_s_own_schema():
    cluster = yaml.safe_load(text("ray-cluster.yaml"))
    jsonschema.validate(cluster, LAUNCHER)

    assert cluster["max_workers"] == len(cluster["provider"]["worker_ips"])
    with pytest.raises(jsonschema.ValidationError, match="worker_start_commands"):
        jsonschema.validate({**cluster, "worker_start_commands": []}, LAUNCHER)
    with pytest.raises(jsonschema.ValidationError, match="'provider' is a required property"):
        jsonschema.validate({k: v for k, v in cluster.items() if k != "provider"}, LAUNCHER)


def test_the_cluster_is_not_open_to_everybody():
    cluster = yaml.safe_load(text("ray-cluster.yaml"))
    starts = [
        c for key in ("head", "worker") for c in cluster[f"{key}_start_ray_commands"] if "ray start" in c
    ]

    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "0.0.0.0" not in text("ray-cluster.yaml")


# KubeRay ----------------------------------------------------------------------------------------


def test_the_job_is_valid_by_the_schema_of_kuberay():
    job = manifests()["RayJob"]
    jsonschema.validate(job, KUBERAY)
    for change in (
        lambda spec: spec["rayClusterSpec"].pop("headGroupSpec"),
        lambda spec: spec["rayClusterSpec"]["workerGroupSpecs"][0].update(replicas="2"),
        lambda spec: spec["rayClusterSpec"].update(workerGroups=[]),
        lambda spec: spec["rayClusterSpec"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    ):
        broken = json.loads(json.dumps(job))
        change(broken["spec"])
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(broken, KUBERAY)


def test_the_job_has_this_ray_and_this_fedsim_and_a_token():
    cluster = manifests()["RayJob"]["spec"]["rayClusterSpec"]
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    containers = [c for group in groups for c in group["template"]["spec"]["containers"]]

    assert cluster["rayVersion"] == pinned("ray")
    assert cluster["authOptions"] == {"mode": "token"}
    assert {c["image"].rpartition(":")[2] for c in containers} == {fedsim.__version__}
    assert all(group["template"]["spec"]["securityContext"]["runAsNonRoot"] for group in groups)
    assert all(set(c["resources"]) == {"requests", "limits"} for c in containers)


def test_the_job_runs_the_experiment_that_it_brings():
    kinds = manifests()
    head = kinds["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]
    mounts = {m["name"]: m["mountPath"] for m in head["containers"][0]["volumeMounts"]}
    volumes = {v["name"]: v for v in head["volumes"]}
    words = shlex.split(kinds["RayJob"]["spec"]["entrypoint"])

    assert admit(
        fedsim.Experiment.model_validate(yaml.safe_load(kinds["ConfigMap"]["data"]["experiment.yaml"]))
    )
    assert volumes["experiment"]["configMap"]["name"] == kinds["ConfigMap"]["metadata"]["name"]
    assert (
        volumes["runs"]["persistentVolumeClaim"]["claimName"]
        == kinds["PersistentVolumeClaim"]["metadata"]["name"]
    )
    assert words[2] == f"{mounts['experiment']}/experiment.yaml"
    assert words[words.index("--out") + 1].startswith(f"{mounts['runs']}/")
    assert words[words.index("--address") + 1] == "auto"


# SLURM ------------------------------------------------------------------------------------------


def test_the_script_is_one_of_bash_with_the_execute_bit():
    assert os.access(DEPLOY / "slurm.sh", os.X_OK)
    subprocess.run(["bash", "-n", DEPLOY / "slurm.sh"], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", DEPLOY / "slurm.sh"], check=True)


def test_the_script_quotes_what_it_expands():
    """What shellcheck calls SC2086, where it is not installed: a word with spaces stays one word."""
    code = "\n".join(line.partition(" #")[0] for line in text("slurm.sh").splitlines() if line[:1] != "#")
    outside = re.sub(
        r'"(?:[^"\\]|\\.)*"',
        '""',
        re.sub(r"'[^']*'", "''", re.sub(r"<< 'PYTHON'.*?\nPYTHON", "", code, flags=re.DOTALL)),
    )
    bare = re.findall(r"(?<![=\w])\$\{?\w+", re.sub(r"^\s*[A-Za-z_]+=\S*$", "", outside, flags=re.MULTILINE))

    assert bare == []


def test_the_script_tells_what_it_needs():
    done = subprocess.run(["bash", DEPLOY / "slurm.sh"], capture_output=True, text=True, check=False)

    assert done.returncode != 0
    assert "usage: sbatch deploy/slurm.sh EXPERIMENT.yaml RUN_FOLDER" in done.stderr


def test_the_script_ends_its_own_processes_only():
    assert "ray stop" not in text("slurm.sh")
    assert "pkill" not in text("slurm.sh")
    assert re.search(r"^#SBATCH --signal=B:TERM@\d+$", text("slurm.sh"), re.MULTILINE)


# the container ----------------------------------------------------------------------------------


def instructions():
    """(instruction, rest) of the Dockerfile, continued lines joined, comments left out."""
    lines = [line for line in text("Dockerfile").splitlines() if line.strip() and not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [tuple(line.split(None, 1)) for line in joined.splitlines()]


KNOWN = {"FROM", "WORKDIR", "COPY", "RUN", "ARG", "USER", "ENV", "CMD"}


def test_the_image_is_made_of_known_steps_and_ends_as_nobody_special():
    steps = instructions()
    last = len(steps) - 1 - [kind for kind, _ in reversed(steps)].index("FROM")
    final = dict(steps[last:])

    assert {kind for kind, _ in steps} <= KNOWN
    assert steps[0][0] == "FROM"
    assert all(":" in rest and ":latest" not in rest for kind, rest in steps if kind == "FROM")
    assert final["USER"] == "fedsim"
    assert "useradd --create-home --uid 1000 fedsim" in " ".join(
        rest for kind, rest in steps if kind == "RUN"
    )
    assert json.loads(final["CMD"]) == ["fedsim", "demo"]


def test_what_the_image_copies_is_there_and_not_left_out():
    sources = [rest.split()[:-1] for kind, rest in instructions() if kind == "COPY" and "--from" not in rest]
    kept = {line[1:] for line in text("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    build = {"pyproject.toml", "README.md", "LICENSE", "NOTICE", "fedsim", "hetero_profiles"}

    assert all((ROOT / name).exists() for names in sources for name in names)
    assert build | {"constraints.txt"} == kept
    assert all((ROOT / name).exists() for name in kept)


def test_the_image_has_the_tested_versions():
    pip = " ".join(rest for kind, rest in instructions() if kind == "RUN" and "pip install" in rest)

    assert "--constraint /tmp/constraints.txt" in pip
    assert '"ray[default]"' in pip
    assert f"fedsim:{fedsim.__version__}" in text("Dockerfile")
    assert f"fedsim:{fedsim.__version__}" in PAGE
