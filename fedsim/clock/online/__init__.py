"""Who is online now, and idle, and the events of a device that goes offline and is online again: windows, batteries, heat.

Uses devices, records, configuration and the clock's trainings on devices; knows nothing of visits or servers.
"""
