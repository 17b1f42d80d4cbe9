"""Programs that measure fedsim; not part of the installed package."""
