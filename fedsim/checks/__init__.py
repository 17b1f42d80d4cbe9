"""What goes together, said before anything starts; uses components, devices and settings."""
