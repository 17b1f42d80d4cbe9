"""Local training with torch, of one client or of many together; uses jobs, adapters and settings."""
