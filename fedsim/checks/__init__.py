"""What goes together, said before anything starts; uses settings and components, and nothing below uses it."""
