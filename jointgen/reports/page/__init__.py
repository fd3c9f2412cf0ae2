"""report.html: one self-contained page on a run (DESIGN.md 5.2)."""

from jointgen.reports.page.page import Shown, write_report

__all__ = ["Shown", "write_report"]
