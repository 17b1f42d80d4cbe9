"""What a model of others is held against before it trains: its checkpoint, its configuration, a few tokens."""
