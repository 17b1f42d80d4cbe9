"""What a run will take of disk and memory, said before it starts."""
