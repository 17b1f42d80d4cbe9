"""Tables that are too long for memory: written in parts while a run goes, put in order on disk, read by columns."""
