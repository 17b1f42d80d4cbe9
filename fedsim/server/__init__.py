"""Mechanism without policy: dispatch, rounds, commits, versions, books: the only place where both times meet."""
