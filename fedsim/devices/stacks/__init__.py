"""What software makes of a device: stacks, the law of a step's time, and who trains with which; uses the tables."""
