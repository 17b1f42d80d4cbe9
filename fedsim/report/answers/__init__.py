"""The section of the page about what a model of chats answers."""
