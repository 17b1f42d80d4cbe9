"""What becomes of calls whose workers are lost, and of a Ray whose head is gone."""
