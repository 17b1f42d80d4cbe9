"""`python -m fedsim.combinations`: print docs/combinations.md."""

from fedsim.combinations.page import markdown

print(markdown(), end="")
