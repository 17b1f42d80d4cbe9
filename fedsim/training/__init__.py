"""Local training: LoRA in and out of a model, and the loops that run on a worker."""
