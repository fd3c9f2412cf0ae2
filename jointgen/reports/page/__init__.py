"""report.html: one self-contained page on a run."""

from jointgen.reports.page.page import Shown, write_report

__all__ = ["Shown", "write_report"]
