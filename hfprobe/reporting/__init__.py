"""Write pages, tables and figures from the results that evaluations and measurements saved. Does not import torch."""

from hfprobe.reporting.comparison import write_comparison
from hfprobe.reporting.label_efficiency import write_label_efficiency
from hfprobe.reporting.profile import write_profile
from hfprobe.reporting.report import write_report

__all__ = ["write_comparison", "write_label_efficiency", "write_profile", "write_report"]
