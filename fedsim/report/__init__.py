"""The report: one HTML file about a run, or about several beside each other, that needs no network.

from fedsim import report
report.write([fedsim.load("runs/demo")], Path("report.html"))
"""

from fedsim.report.page import write

__all__ = ["write"]
