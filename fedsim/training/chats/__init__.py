"""Chats and other examples of unequal length: rows of tokens, batches of them, scores and generation."""
