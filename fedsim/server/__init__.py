"""Dispatch, rounds, commits and versions: where both times meet; uses the clock, executors, rules and records."""

from __future__ import annotations

from fedsim.server.server import Server

__all__ = ["Server"]
