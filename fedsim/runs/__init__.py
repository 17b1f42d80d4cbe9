"""One run from its first event to its last table; sweeps, replays, estimates, calibration; uses the server and executors."""
