"""Pages, tables and pictures from an EvalResult on disk. Imports no torch."""

from hfprobe.reporting.comparison import write_comparison
from hfprobe.reporting.report import write_report

__all__ = ["write_comparison", "write_report"]
