"""Pages, tables and pictures from an EvalResult on disk. Imports no torch."""

from hfprobe.reporting.report import write_report

__all__ = ["write_report"]
