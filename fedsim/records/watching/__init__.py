"""Runs that go on, seen from outside: how far they are and how long they will take."""
