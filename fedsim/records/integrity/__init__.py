"""Whether a run folder is as the run left it: SHA-256 of files and values, and values that stand for something."""
