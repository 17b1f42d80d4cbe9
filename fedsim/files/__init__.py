"""Files of any kind: written whole, read with line numbers, mapped as vectors; uses adapters and errors."""
