"""Configurations of well-known denoisers, without weights: what `task.charge_as.preset` can charge."""
