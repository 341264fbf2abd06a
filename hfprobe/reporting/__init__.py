"""Write pages, tables and figures from the results that evaluations and measurements saved. Does not import torch."""

from hfprobe.reporting.comparison import save_comparison, write_comparison
from hfprobe.reporting.label_efficiency import write_label_efficiency
from hfprobe.reporting.profile import write_profile
from hfprobe.reporting.report import save_evaluation, write_report

__all__ = [
    "save_comparison",
    "save_evaluation",
    "write_comparison",
    "write_label_efficiency",
    "write_profile",
    "write_report",
]
