"""What every key of an experiment means, takes and is without being set: read from the settings themselves."""
