"""Mechanism without policy: dispatch, rounds, commits, versions, books: the only place where both times meet.

Uses everything below it: the clock, executors, rules and records.
"""

from __future__ import annotations

from fedsim.server.server import Server

__all__ = ["Server"]
