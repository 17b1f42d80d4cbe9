"""Checkpoints of a run, and how it goes on from one: the schedule replayed and compared, then the values put in."""
