"""Server protocols: short SimPy generators over the verbs of the server."""
