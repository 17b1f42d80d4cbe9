"""`python -m fedsim.checks.combinations`: print docs/combinations.md."""

from fedsim.checks.page import markdown

print(markdown(), end="")
