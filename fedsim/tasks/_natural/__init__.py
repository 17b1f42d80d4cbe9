"""Data of natural owners: who becomes a client, with how much of it, and in which order of time."""
