"""fedsim: federated LoRA fine-tuning on unequal devices."""
