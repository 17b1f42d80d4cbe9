"""Chats, instructions and completions: read, written as text, cut into tokens, dealt, packed, and the task of them."""
