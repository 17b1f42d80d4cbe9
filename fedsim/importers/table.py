"""A table of ours in memory: written whole or not at all, never over another file, and told in figures."""

from __future__ import annotations

import csv
import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from fedsim.errors import HostError, ProfileError, message
from fedsim.files.disk import refusal
from fedsim.files.user_tables import data_of, read_rows
from fedsim.importers.options import Options

Kind = Literal["devices", "networks", "windows", "rates"]


@dataclass(frozen=True)
class Table:
    """What an importer makes.

    Attributes:
        kind: what it is to `fedsim profiles check` and to `population`.
        columns: header -> cells.
        facts: lines of the header: source, licence, what was done to the data.
        figures: what a person should see of it, in order.
    """

    kind: Kind
    columns: dict[str, list[Any]]
    facts: dict[str, str]
    figures: dict[str, Any]

    def described(self, name: str, files: Sequence[Path], options: Options) -> Table:
        """Return the table with its provenance: source, licence, and the SHA-256 of the file.

        Of several files it is the SHA-256 of theirs, in hexadecimal, one after another.

        Raises:
            ProfileError: a label that a table cannot hold.
        """
        for label in next(iter(self.columns.values())):
            if not label.strip() or label.startswith("#"):
                what = "a name must not be empty nor begin with #"
                raise ProfileError(message(str(files[0]), what, got=label, fix="rename it"))
        paths = [*files, *options.up]
        names = ", ".join(path.name for path in paths[:3]) + f" and {len(paths) - 3} more" * (len(paths) > 3)
        digests = [hashlib.sha256(data_of(path)).hexdigest() for path in paths]
        digest = digests[0] if len(paths) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
        origin = {
            "source": options.source or _stated(paths, "source") or names,
            "licence": options.licence or _stated(paths, "licence") or "not stated",
            "imported": f"{name}, {len(paths)} file{'s' * (len(paths) > 1)}, sha256 {digest}",
        }
        return replace(
            self, facts={key: " ".join(text.split()) for key, text in (origin | self.facts).items()}
        )

    def write(self, path: Path) -> None:
        """Write the table; `.csv` or `.parquet`.

        Raises:
            ProfileError: another suffix, no such folder, or something is there already.
            HostError: the disk is full, read-only or broken.
        """
        data = self._bytes(path)
        if path.exists() or path.is_symlink():
            raise ProfileError(message(str(path), "exists already", fix="choose another --out, or remove it"))
        if not path.absolute().parent.is_dir():
            raise ProfileError(message(str(path), "its folder does not exist", fix="make the folder first"))
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with beside.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.link(beside, path)  # unlike a rename, never replaces
        except FileExistsError as problem:
            fix = "choose another --out, or remove it"
            raise ProfileError(message(str(path), "exists already", fix=fix)) from problem
        except OSError as problem:
            what = f"cannot be written ({problem.strerror})"
            error = ProfileError if refusal(problem) is None else HostError
            raise error(message(str(path), what, fix="choose a folder that can be written")) from problem
        finally:
            beside.unlink(missing_ok=True)

    def _bytes(self, path: Path) -> bytes:
        if path.suffix.lower() == ".parquet":
            import pyarrow as pa
            import pyarrow.parquet as pq

            arrow = pa.table(self.columns).replace_schema_metadata(self.facts)
            sink = pa.BufferOutputStream()
            pq.write_table(arrow, sink, compression="zstd")
            return bytes(sink.getvalue().to_pybytes())
        if path.suffix.lower() != ".csv":
            fix = "give a .csv or a .parquet file"
            raise ProfileError(message("--out", "not a table", got=path.suffix or path.name, fix=fix))
        text = io.StringIO()
        text.writelines(f"# {key}: {value}\n" for key, value in self.facts.items())
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(zip(*self.columns.values(), strict=True))
        return text.getvalue().encode()


def spread(values: ArrayLike) -> str:
    """Return the minimum, median and maximum, for a person.

    >>> spread([1, 2, 30])
    'min 1, median 2, max 30'
    """
    low, middle, high = np.quantile(np.asarray(values, dtype=np.float64), (0, 0.5, 1))
    return f"min {low:.4g}, median {middle:.4g}, max {high:.4g}"


def _stated(paths: Sequence[Path], fact: str) -> str:
    """Return what the headers of tables say, each once; other files say nothing."""
    tables = [path for path in paths if path.suffix.lower() in (".csv", ".parquet")]
    return "; ".join(dict.fromkeys(said for path in tables if (said := read_rows(path).facts.get(fact))))
