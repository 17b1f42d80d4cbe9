"""What is learned: data, model, partition and loss."""
