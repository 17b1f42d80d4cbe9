"""What the block `lora` says of adapters: rank, scale, and what people add to plain LoRA."""
