"""A `config.json` that is taken apart key by key: what nobody has asked for at the end was not known."""

from __future__ import annotations

import math
from collections.abc import Mapping

from fedsim.training.direct.architecture import Rope

IGNORED = frozenset({
    "_name_or_path", "architectures", "bos_token_id", "dtype", "eos_token_id", "initializer_range", "model_type",
    "pad_token_id", "torch_dtype", "transformers.js_config", "transformers_version", "use_cache",
})  # fmt: skip
"""Keys that say nothing about what a model computes."""
LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings")


class UnusualError(Exception):
    """A value is not one that is known here: the model goes the way of all others."""


class Settings:
    """A configuration that is taken apart; every method raises `UnusualError` where a value is not of its kind."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self._left = {key: value for key, value in settings.items() if key not in IGNORED}
        self.architectures = settings.get("architectures")

    def raw(self, key: str, default: object = None) -> object:
        """Return a value as it is."""
        return self._left.pop(key, default)

    def count(self, key: str, default: int | None = None) -> int:
        """Return a whole number above 0; the default where there is none, or it is null."""
        value = self.raw(key)
        value = default if value is None else value
        if not isinstance(value, int) or isinstance(value, bool) or value <= 0:
            raise UnusualError(key)
        return value

    def number(self, key: str, default: float) -> float:
        """Return a number above 0."""
        return _number(self.raw(key, default), key)

    def flag(self, key: str, *, default: bool) -> bool:
        """Return a truth value."""
        value = self.raw(key, default)
        if not isinstance(value, bool):
            raise UnusualError(key)
        return value

    def expect(self, key: str, *values: object, default: object) -> None:
        """Go on only if a key has one of some values, of the same type."""
        value = self.raw(key, default)
        if not any(type(value) is type(other) and value == other for other in values):
            raise UnusualError(key)

    def texts(self, key: str, count: int, choices: tuple[str, ...]) -> tuple[str, ...] | None:
        """Return as many texts out of some choices; None: there is no such key."""
        value = self.raw(key)
        if value is None:
            return None
        if not isinstance(value, list) or len(value) != count or not all(item in choices for item in value):
            raise UnusualError(key)
        return tuple(value)

    def rope(self, theta: float) -> Rope:
        """Return RoPE's angles, `theta` where their base is not told; older files have it beside `rope_scaling`."""
        if "rope_parameters" in self._left:
            if self._left.keys() & {"rope_theta", "rope_scaling"}:
                raise UnusualError("rope_theta")
            return rope_of(self.raw("rope_parameters"))
        scaling = self.raw("rope_scaling")
        older = {"rope_type": "default"} if scaling is None else scaling
        if not isinstance(older, dict):
            raise UnusualError("rope_scaling")
        return rope_of({"rope_theta": self.raw("rope_theta", theta), **older})

    def finish(self, *ignored: str) -> None:
        """Go on only if every key has been asked for, or is one of these."""
        if left := self._left.keys() - set(ignored):
            raise UnusualError(*sorted(left))


def rope_of(values: object) -> Rope:
    """Return RoPE's angles of one entry: the plain ones, or Llama 3's.

    Raises:
        UnusualError: others, or it has more keys.
    """
    if not isinstance(values, dict):
        raise UnusualError("rope_parameters")
    theta = _number(values.get("rope_theta"), "rope_theta")
    plain = {"rope_theta", "rope_type"}
    if values.get("rope_type") == "default" and values.keys() == plain:
        return Rope(theta)
    if values.get("rope_type") != "llama3" or values.keys() != plain | set(LLAMA3):
        raise UnusualError("rope_type")
    factor, low, high, positions = (_number(values[key], key) for key in LLAMA3)
    if high <= low:
        raise UnusualError("high_freq_factor")
    return Rope(theta, (factor, low, high, positions))


def _number(value: object, key: str) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise UnusualError(key)
    if not 0 < value < math.inf:
        raise UnusualError(key)
    return float(value)
