"""Pages, tables and pictures from an EvalResult on disk. Imports no torch."""

from hfprobe.reporting.comparison import write_comparison
from hfprobe.reporting.profile import write_profile
from hfprobe.reporting.report import write_report

__all__ = ["write_comparison", "write_profile", "write_report"]
