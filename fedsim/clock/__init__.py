"""The plan of an experiment, a visit on the virtual clock, who is online; uses components, devices, network, cost."""
