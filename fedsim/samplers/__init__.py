"""Whom to ask: samplers choose among clients that are idle and online."""
