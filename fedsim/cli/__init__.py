"""What somebody types, and what is printed; uses everything, and nothing uses it."""
