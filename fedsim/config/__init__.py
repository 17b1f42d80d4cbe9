"""The experiment as typed settings: YAML, overrides, and errors in words; uses files and the ground floor only."""
