"""What the file of a checkpoint is made of: plain values, tensors, and what clients kept."""
