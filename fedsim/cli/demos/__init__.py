"""The two demos: text and images."""
