"""Tables of runs as one HTML page that needs no network; uses records and metrics, and no simulator.

from fedsim import report
report.write([fedsim.load("runs/demo")], Path("report.html"))
"""

from fedsim.report.page import write

__all__ = ["write"]
