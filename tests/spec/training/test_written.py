"""Adapters of equal values are equal files, whatever the order in which this process has its sets and maps."""

import json
import os
import subprocess
import sys

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from fedsim.training.written import order_header

CODE = """
import sys
from pathlib import Path
from peft import LoraConfig
from fedsim.training.written import save_config
save_config(LoraConfig(target_modules=["q", "k", "v", "o", "gate", "up"], r=2), Path(sys.argv[1]))
"""


def test_a_config_has_the_same_bytes_in_every_process_and_the_same_values(tmp_path, monkeypatch):
    """Of this process, and of one whose sets have another order."""
    monkeypatch.setattr(sys, "argv", ["", str(tmp_path / "here")])
    exec(CODE, {})
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    env = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "there")], check=True, env=env)
    texts = [(tmp_path / name / "adapter_config.json").read_bytes() for name in ("here", "there")]

    assert texts[0] == texts[1]
    assert json.loads(texts[0])["target_modules"] == ["gate", "k", "o", "q", "up", "v"]
    assert json.loads(texts[0])["peft_type"] == "LORA"


def test_a_header_is_in_order_and_the_arrays_are_where_they_were(tmp_path):
    texts = set()
    for number in range(6):  # the library has its maps in an order of chance
        path = tmp_path / f"{number}.safetensors"
        save_file(
            {"x": np.arange(5.0), "y": np.ones((2, 2), np.float32)},
            path,
            metadata={"b": "é", "a": "1", "c": "3"},
        )
        order_header(path)
        texts.add(path.read_bytes())
        with safe_open(path, "np") as file:
            assert file.metadata() == {"a": "1", "b": "é", "c": "3"}
        assert load_file(path)["x"].tolist() == [0, 1, 2, 3, 4]

    assert len(texts) == 1
