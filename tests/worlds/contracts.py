"""What the contract suites run over: everything that ships, by discovery, and the components of docs/extending.md."""

from __future__ import annotations

from fedsim.component import build, kinds

OWN_RULE, OWN_PROTOCOL, OWN_SAMPLER = "my_rules:Median", "my_protocols:Relay", "my_samplers:Fair"
RULES = [*kinds("aggregators"), OWN_RULE]
IN_ORDER = {"mixing"}
"""Rules that take one client after the other, so the order matters by definition."""


def rule_of(kind):
    """The rule of a kind or an import path, with its defaults."""
    return build("aggregators", {"kind": kind})
