"""The plan of an experiment, one visit on the virtual clock, and who is online; uses devices, network and cost."""
