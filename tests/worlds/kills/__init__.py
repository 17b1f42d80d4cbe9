"""Runs that are killed, cut off from power or out of disk, resumed, and held against the same run left alone."""
