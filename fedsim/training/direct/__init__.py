"""Models of the written-out families read straight from their folders: no transformers, and no torch before weights are needed."""
