"""Whose device is online now, and the events of one that goes offline and is online again: windows, batteries, heat.

Uses devices, configuration and the clock's trainings on devices; knows nothing of visits or servers.
"""
