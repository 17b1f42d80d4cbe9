"""fedsim's clock against measured transfers, CPU quotas and whole federated runs of real processes."""
