"""Runs without their page, which takes longer than a run of the closed-form task."""

from __future__ import annotations


def leave_out_pages(monkeypatch):
    """Have no run and no sweep write `report.html`; what is said of it stays."""
    for module in ("fedsim.runs.simulation", "fedsim.runs.resuming.resume"):
        monkeypatch.setattr(f"{module}.write_report", lambda _run: None)
    monkeypatch.setattr("fedsim.report.write", lambda _runs, out, **_: out)
