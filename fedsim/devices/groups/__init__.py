"""Links that clients of a home, a cell or a region share: who shares which, and how fast it is."""
