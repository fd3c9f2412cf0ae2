"""The card of a shared model, README.md: what it is, its figures with what they bound, and how to load it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jointgen.reports.citations import bibtex, component_papers
from jointgen.reports.page.figures import figure_rows
from jointgen.reports.run_figures import figures_of_run
from jointgen.runs.folder import RunFolder

if TYPE_CHECKING:
    from jointgen.inference.model import Model


def model_card(folder: RunFolder, model: Model, name: str, pictures: list[str]) -> str:
    """Write the card of a run.

    Args:
        folder: The run folder.
        model: Its model, at the checkpoint that is shared.
        name: What people load it by: "hf:user/name", or a path.
        pictures: The paths of its pictures within the shared folder.

    Returns:
        Markdown, with the hub's metadata on top.
    """
    title = model.compiled.recipe.name
    parts = [
        "---\nlibrary_name: jointgen\ntags:\n- jointgen\n- generative-model\n---",
        f"# {title}",
        "\n".join(f"- `{variable}`: {space}" for variable, space in model.spaces.items()),
        "## What it was trained for",
        *(f"```text\n{stage.objective}\n```" for stage in model.compiled.stages),
        "## How to load it",
        f'```python\nimport jointgen\n\nmodel = jointgen.load("{name}")\nx = model.sample(64)\n```',
        f"```sh\njointgen sample {name} -o samples.png\n```",
        *_code_of_its_own(folder),
        "## Figures",
        _figures(folder, model.checkpoint),
        *(f"![{picture}]({picture})" for picture in pictures),
        "## To cite",
        f"```bibtex\n{bibtex(model.compiled.recipe)}\n```",
        *_papers(model),
    ]
    return "\n\n".join(parts) + "\n"


def _code_of_its_own(folder: RunFolder) -> list[str]:
    """Say which code loading the model runs."""
    files = sorted(path.name for path in folder.plugins.glob("*.py")) if folder.plugins.is_dir() else []
    if not files:
        return []
    named = ", ".join(f"`plugins/{file}`" for file in files)
    return [f"It has code of its own, {named}: read it before you load it with `trust=True` (`--trust` in the shell)."]


def _figures(folder: RunFolder, checkpoint: str) -> str:
    """A table of the figures, each with its estimator, rows and what it bounds."""
    summary, _ = folder.summary_or_remark()
    run = figures_of_run(summary, folder.read_evaluation())
    rows = figure_rows(run)
    if not rows:
        return "None were evaluated."
    of = f"Of `{run.checkpoint}`" + (
        "" if run.checkpoint == checkpoint else f", while the weights are `{checkpoint}`'s"
    )
    lines = ["| figure | value | unit | is | how | split | rows |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        figure = run.figures[row["name"]]
        error = f" ± {row['error']}" if row["error"] else ""
        cells = (row["title"], f"{row['value']}{error}", row["unit"], row["bound"], figure.estimator, figure.split)
        lines.append("| " + " | ".join(str(cell).replace("|", "\\|") for cell in (*cells, figure.n)) + " |")
    meanings = sorted({row["meaning"] for row in rows} - {""})
    return "\n".join([f"{of}; ± is a standard error.", "", *lines, "", *(f"- {line}" for line in meanings)])


def _papers(model: Model) -> list[str]:
    """Name the papers of the components that the recipe uses."""
    papers = component_papers(model.compiled.recipe, model.compiled.registry)
    lines = "\n".join(f"- {name}: {paper}" for name, paper in papers.items())
    return [f"The papers of its components:\n\n{lines}"] if papers else []
