"""`python -m fedsim` is `fedsim`."""

from fedsim.cli.app import main

if __name__ == "__main__":
    main()
