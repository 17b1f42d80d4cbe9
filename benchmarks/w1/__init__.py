"""W1, the workload all contestants share: `World()` defines it, `measure.run` times it."""
