"""`python -m fedsim.checks`: print docs/combinations.md."""

from fedsim.checks.page import markdown

print(markdown(), end="")
