"""No personalisation: every client uses what it would download (its own model where the rule keeps one)."""

from __future__ import annotations

from typing import Literal

from fedsim.personal._base import Personal


class Nothing(Personal):
    """`personal: {kind: none}`; with `unseen` or `local_epochs` clients are still looked at after the run."""

    kind: Literal["none"] = "none"
