"""What tells others of runs: exports, and who listens to a run from the command line."""
