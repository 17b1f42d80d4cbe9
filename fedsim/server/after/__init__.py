"""After the last version: what each client ends with, and pictures; uses the server's values and executors."""
