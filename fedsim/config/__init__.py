"""The experiment as typed settings: YAML, overrides, problems in words; uses files and the ground floor."""
