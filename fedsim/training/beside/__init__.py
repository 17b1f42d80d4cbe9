"""What is trained beside the factors A and B, and adapters that stock PEFT has saved: names, shapes, values, files."""
