"""A task of the user's own: settings, data by clients, and the runtime side."""
