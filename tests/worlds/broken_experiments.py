"""Experiments that people did not mean: broken YAML, values of other kinds, keys that are not there, odd overrides."""

from __future__ import annotations

import tempfile
from pathlib import Path

import yaml
from hypothesis import strategies as st

import fedsim
from fedsim.errors import ExperimentError
from worlds.broken_inputs import JSON_LEAVES, changed, places_in, replaced

WHOLE = """\
name: a-covering-one
seed: 3
population: {preset: mixed_edge_2025, clients: 20, on_close: partial, availability: charging}
network: {sharing: max-min, server_up_mbps: 100, server_down_mbps: 1000, congestion: loss-based, loss: 0.01}
compute: {unit_sigma: 0.1, thermal: moderate}
energy: {tail: true}
task:
  kind: language
  partition: {kind: dirichlet, alpha: 0.3}
lora: {r: 8, alpha: 16}
local: {optimizer: adamw, lr: 1e-3, batch: 4, epochs: 1, prox_mu: 0.01}
protocol: {kind: buffered, buffer: 5, concurrency: 10, max_staleness: 20}
sampler: {kind: uniform}
aggregator: {kind: fedit, weight: examples, staleness: {kind: polynomial, a: 0.5}}
server_optimizer: {kind: adam, lr: 0.01}
wire: {dtype: int8, top_k: 0.1, error_feedback: true}
personal: {kind: fine-tune, epochs: 1}
evaluate: {every_commits: 5, splits: [test], windows: 8, ema: 0.9}
budget: {commits: 20, time_s: 86400}
runtime: {executor: inline}
"""
SPRINKLED = st.sampled_from([
    b"\xef\xbb\xbf", b"\x00", b"\xe9", b"\t", b"\r", b"\n", b"\n  ", b": ", b"- ", b"? ", b"&a ", b"*a", b"!!python/object:os.system ", b"!!float ",
    b"{", b"}", b"[", b"]", b"[" * 2000, b"{a: " * 2000, b"<<: ", b"'", b'"', b"|\n", b">\n", b"#", b"%YAML 1.1\n---\n", b"---\n", b"...\n",
    b"1e999", b"9" * 400, b"0x", b"0o9", b".nan", b"-.inf", b"2025-01-01", b"on", b"~", b"\xe2\x80\xa8", b"\xf0\x9f\x98\x80", b"\\x1b[31m", b"seed: 1\n",
])  # fmt: skip
PLACE = st.floats(0, 1)
CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), PLACE, SPRINKLED),
        st.tuples(st.just("put"), PLACE, st.binary(max_size=4)),
        st.tuples(st.just("cut"), PLACE, PLACE),
        st.tuples(st.just("again"), PLACE, PLACE),
        st.tuples(st.just("flip"), PLACE, st.integers(1, 255)),
    ),
    max_size=5,
)
LEAVES = st.one_of(
    JSON_LEAVES,
    st.floats(),
    st.sampled_from([
        0, 1, -1, 1e-300, 1e300, 10**30, True, "auto", "none", "off", "all", "1", "os:system", "a.b:C", "../x", "/", "~", "\x1b[31m", "é\u2028", "kind",
        {"kind": "none"}, {"kind": 3}, {"kind": "os:system"}, [1, 2], ["a", "a"], [[]], {"": 1}, {"a": {"b": {"c": 1}}},
    ]),
)  # fmt: skip
OVERRIDES = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([".".join(map(str, p)) for p in places_in(yaml.safe_load(WHOLE)) if p]),
            st.text(max_size=8),
        ),
        st.one_of(LEAVES.map(repr), st.text(max_size=8)),
    ).map("=".join),
    max_size=3,
)


def in_sentences(call):
    """Return what a call gives, or None if it is refused: lines that can be printed, a fix for every problem."""
    try:
        return call()
    except ExperimentError as error:
        text = str(error)
        assert text.strip()
        assert "Traceback" not in text
        assert all(line.isprintable() for line in text.split("\n")), text
        return None


def made_of(data, overrides=()):
    """Read bytes as an experiment, None if they are refused; what is read can be read again from what it says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_bytes(data)
        made = in_sentences(lambda: fedsim.read(path, list(overrides)))
        assert [p.name for p in Path(folder).iterdir()] == ["a.yaml"]
        if made is not None:
            assert fedsim.Experiment.model_validate(made.plain()) == made
        return made


def read_broken(changes, overrides):
    """Read the whole one with its bytes changed."""
    made_of(changed(WHOLE.encode(), changes), overrides)


def read_replaced(data):
    """Read the whole one with other values in some places."""
    value = yaml.safe_load(WHOLE)
    for _ in range(data.draw(st.integers(1, 3))):
        places = [path for path in places_in(value) if path]
        if not places:
            break
        value = replaced(
            value, data.draw(st.sampled_from(places)), data.draw(st.one_of(LEAVES, st.just(...)))
        )
    made_of(yaml.safe_dump(value, allow_unicode=data.draw(st.booleans())).encode("utf-8", "surrogatepass"))
