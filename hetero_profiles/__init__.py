"""Device, network and availability tables and population presets: data only, standard library only.

`names()` lists the files, `locate(name)` gives the path of one. What they mean is in README.md
beside them; reading and checking them is the business of `fedsim.devices.population`.
"""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent


def names() -> list[str]:
    """Return the names of all data files, sorted (`devices.csv`, `presets/phones_2020.yaml`, ...)."""
    paths = (path for suffix in ("csv", "parquet", "yaml") for path in _HERE.rglob(f"*.{suffix}"))
    return sorted(path.relative_to(_HERE).as_posix() for path in paths)


def locate(name: str) -> Path:
    """Return the path of a data file.

    Raises:
        FileNotFoundError: there is no such file; the message lists what exists.

    >>> locate("devices.csv").name
    'devices.csv'
    """
    if name not in names():
        raise FileNotFoundError(f"hetero_profiles has no {name!r}; it has: {', '.join(names())}")
    return _HERE / name
