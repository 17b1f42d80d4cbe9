"""What is learned, as one flat vector, and its algebra; uses NumPy only."""
