"""What training holds in memory: by which software, and what is done where it does not fit; uses the shape of a model."""
