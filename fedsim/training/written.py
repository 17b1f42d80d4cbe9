"""What libraries write in an order of chance, put in order: equal adapters are equal files, in every process."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import TYPE_CHECKING

from fedsim.files.atomic import write_atomically

if TYPE_CHECKING:
    from peft import PeftConfig

_LENGTH = struct.Struct("<Q")


def save_config(config: PeftConfig, folder: Path) -> None:
    """Write `adapter_config.json` as PEFT does, its sets (`target_modules`) sorted."""
    config.save_pretrained(str(folder))
    path = folder / "adapter_config.json"
    values = json.loads(path.read_text(encoding="utf-8"))
    sets = [name for name, value in vars(config).items() if isinstance(value, set | frozenset)]
    values |= {name: sorted(values[name]) for name in sets if isinstance(values.get(name), list)}
    write_atomically(path, json.dumps(values, indent=2, sort_keys=True).encode())


def order_header(path: Path) -> None:
    """Sort what a safetensors file says of itself; its arrays stay where they are."""
    data = path.read_bytes()
    (length,) = _LENGTH.unpack_from(data)
    header = json.loads(data[_LENGTH.size : _LENGTH.size + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    write_atomically(path, _LENGTH.pack(len(text)) + text + data[_LENGTH.size + length :])
