"""`python -m benchmarks.devices fit`: estimate the stacks anew, and write what is predicted beside what was measured."""

from __future__ import annotations

import argparse

from benchmarks.devices import tables


def main() -> None:
    """Write the tables, or print the summary."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.devices", description=__doc__)
    parser.add_argument("command", choices=("fit", "show"), help="write the tables, or print them")
    if parser.parse_args().command == "fit":
        tables.write()
    else:
        print(tables.readme(tables.fitted()), end="")


if __name__ == "__main__":
    main()
