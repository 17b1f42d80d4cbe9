"""Secrets are neither stored nor shown: tokens, passwords in addresses, values of variables that hold some."""

from __future__ import annotations

import json

import pytest

from fedsim.cli.app import call
from fedsim.config.experiment import Experiment
from fedsim.errors import ExperimentError, RunError, message
from fedsim.records.info import RunInfo
from fedsim.redaction import is_secret_name, redacted, redactor
from fedsim.runs.simulation import simulate

TOKEN = "hf_" + "Ab1Cd2Ef3G" * 3
SECRETS = (
    TOKEN,
    "https://me:pass@huggingface.co/a/b",
    f"https://{TOKEN}@hf.co/x",
    "ghp_" + "a1B2c3" * 6,
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c2lnbmF0dXJl",
    "https://host/file?X-Amz-Signature=abcdef0123&n=1",
    "AKIA" + "ABCDEFGH12345678",
)
PLAIN = (
    "openai-community/gpt2",
    "/data/sk-learn/hf_models",
    "https://host/a@b",
    "me@host",
    "hf_short",
    "a:b",
    "~/x",
)
SETTINGS = {
    "task": {"kind": "quadratic"},
    "population": {"preset": "homogeneous", "clients": 2},
    "budget": {"commits": 1},
    "local": {"optimizer": "sgd", "lr": 0.1, "steps": 1},
    "protocol": {"kind": "synchronous", "cohort": 1},
    "runtime": {"executor": "inline"},
}


@pytest.mark.parametrize("text", SECRETS)
def test_a_secret_is_told_and_hidden(text):
    assert redacted(text) != text
    assert "***" in redacted(f"before {text} after")
    for part in (TOKEN, "me:pass", "abcdef0123", "c2lnbmF0"):
        assert part not in redacted(text)


@pytest.mark.parametrize("text", PLAIN)
def test_what_is_no_secret_stays(text):
    assert redacted(text) == text


def test_the_value_of_a_variable_that_holds_a_secret_is_replaced_by_its_name(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "correct-horse-battery")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "false-or-true")
    monkeypatch.setenv("SHORT_TOKEN", "abc")

    assert redacted("it was correct-horse-battery") == "it was $MY_API_KEY"
    assert redacted("false-or-true abc") == "false-or-true abc"
    assert is_secret_name("AWS_SECRET_ACCESS_KEY")
    assert not is_secret_name("tokens_per_visit")


@pytest.mark.parametrize("names", [("A_TOKEN", "B_TOKEN"), ("B_TOKEN", "A_TOKEN")])
def test_of_two_secrets_that_begin_alike_the_longer_one_is_hidden_whole(monkeypatch, names):
    for name, value in zip(names, ("abcdefgh", "abcdefgh12345678"), strict=True):
        monkeypatch.setenv(name, value)

    assert redacted("abcdefgh12345678 abcdefgh") == f"${names[1]} ${names[0]}"


def test_many_texts_are_redacted_with_the_variables_of_that_moment(monkeypatch):
    monkeypatch.setenv("MY_API_KEY", "correct-horse-battery")
    redact = redactor()
    monkeypatch.delenv("MY_API_KEY")

    assert [redact(text) for text in ("correct-horse-battery", "horse")] == ["$MY_API_KEY", "horse"]
    assert redacted("correct-horse-battery") == "correct-horse-battery"


@pytest.mark.parametrize("secret", SECRETS)
def test_settings_with_a_secret_are_refused_without_telling_it(secret):
    task = {"kind": "language", "data": secret}
    for settings in (SETTINGS | {"task": task}, SETTINGS | {"runtime": {"address": secret}}):
        with pytest.raises(ExperimentError) as error:
            Experiment.model_validate(settings)

        said = str(error.value)
        assert "holds a secret" in said
        assert "leave it out" in said
        assert redacted(said) == said
        assert secret not in said


def test_an_address_with_a_password_is_refused():
    with pytest.raises(ExperimentError, match=r"runtime\.address: holds a secret"):
        Experiment.model_validate(SETTINGS | {"runtime": {"address": "user:hunter22@head:6379"}})


def test_a_mistyped_key_of_a_secret_does_not_show_it():
    with pytest.raises(ExperimentError) as error:
        Experiment.model_validate(SETTINGS | {"runtime": {"hf_token": "not-a-known-form-1"}})

    assert "not-a-known-form-1" not in str(error.value)
    assert "runtime.hf_token: no such key (got ***)" in str(error.value)


def test_a_path_takes_no_variable_that_holds_a_secret(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("PLACE", f"/data/{TOKEN}")
    for data, said in (("$HF_TOKEN/x", "HF_TOKEN is a secret by its name"), ("$PLACE", "holds a secret")):
        path = tmp_path / "a.yaml"
        path.write_text(json.dumps(SETTINGS | {"task": {"kind": "language", "data": data}}))

        assert call(["run", str(path)]) == 2
        err = capsys.readouterr().err
        assert said in err
        assert TOKEN not in err


def test_run_json_and_messages_hide_what_an_error_tells(monkeypatch, tmp_path):
    """What a library says of a failure may hold the address with its token."""
    monkeypatch.setenv("HF_TOKEN", "plain-looking-value")
    reason = f"401 for https://u:{TOKEN}@hf.co/x with plain-looking-value"

    text = RunInfo("a", "failed", 0, "", reason=reason, task={"model": reason}).text()
    assert "plain-looking-value" not in text
    assert TOKEN not in text
    said = str(RunError(message("task.model", reason, got=reason, fix=reason)))
    assert "plain-looking-value" not in said
    assert TOKEN not in said


def test_no_file_of_a_run_holds_a_secret_of_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("RAY_AUTH_TOKEN", "0123456789abcdef" * 4)
    simulate(Experiment.model_validate(SETTINGS), out=tmp_path / "run")

    for path in (tmp_path / "run").rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert TOKEN.encode() not in data
            assert b"0123456789abcdef" * 4 not in data
