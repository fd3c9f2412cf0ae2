"""Makes `report.html`, one self-contained page on a run."""

from jointgen.reports.page.page import PageModel, write_report

__all__ = ["PageModel", "write_report"]
