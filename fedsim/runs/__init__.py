"""One run from its first event to its last table, and several: sweeps, replays, estimates; uses all but commands."""
