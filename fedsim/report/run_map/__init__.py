"""The map of a run: who downloaded, trained and uploaded when, in a chosen stretch of virtual time."""
