"""The language task: text, tokens, topics, and the task that workers get."""
