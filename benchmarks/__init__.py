"""Measurements of fedsim against its peers: `python -m benchmarks NAME...`; see README.md."""
