"""A finished run as a notebook shows it: its headline figures, and its last pictures."""

from __future__ import annotations

from html import escape

from jointgen.reports.page.figures import facts_of, figure_rows, highlights
from jointgen.reports.page.training_pictures import frames
from jointgen.reports.run_figures import figures_of_run
from jointgen.runs.folder import RunFolder
from jointgen.runs.records import Summary


def run_html(folder: RunFolder, summary: Summary) -> str:
    """Describe a run as HTML: what it came to, named as on its page, and the pictures of its last step."""
    rows = highlights(figure_rows(figures_of_run(summary, folder.read_evaluation())))
    cell = '<td style="text-align:left">'
    cells = (
        (row["title"], f"{row['value']} ± {row['error']}" if row["error"] else row["value"], row["unit"], row["bound"])
        for row in rows
    )
    figures = "".join(f"<tr>{''.join(f'{cell}{escape(text)}</td>' for text in one)}</tr>" for one in cells)
    facts = ", ".join(f"{name} {value}" for name, value in facts_of(summary, summary.step))
    shown = frames(folder.samples)["frames"][-1:]
    pictures = "".join(
        f'<figure style="display:inline-block; margin:0 1em 0 0"><img src="{picture["uri"]}" style="max-width:20em">'
        f"<figcaption>{escape(picture['caption'])}</figcaption></figure>"
        for frame in shown
        for picture in frame["pictures"]
    )
    return (
        f"<div><b>{escape(str(folder.path))}</b>: {escape(summary.status)} ({escape(facts)})"
        f"<table>{figures}</table>{pictures}<p>{escape(str(folder.report))}</p></div>"
    )
