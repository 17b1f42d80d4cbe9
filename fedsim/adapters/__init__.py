"""What is learned, as one flat vector, and its algebra; uses NumPy and the ground floor only."""
