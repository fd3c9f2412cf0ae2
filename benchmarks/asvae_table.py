"""Runs a study of `benchmarks/studies` by `jointgen study`, and draws its curve.

    python benchmarks/asvae_table.py STUDY [options of jointgen study]

STUDY is a file or the name of one of `benchmarks/studies`. Besides the tables of `jointgen study`, a study with `axes`
gets OUT/curve.png, the trade-off between two figures. Finished runs are not repeated; `--limit-s 0` only writes the
results. So a long study fits into short sessions on a GPU:

    until python benchmarks/asvae_table.py cifar10 --budget full --limit-s 540; do [ $? = 3 ] || break; done
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib import figure as pyplot

from jointgen.cli.arguments import parse
from jointgen.cli.study import run_study
from jointgen.cli.study_tables import Point
from jointgen.errors import JointgenError
from jointgen.runtime.console import printed

STUDIES = Path(__file__).parent / "studies"


def main() -> None:
    words = [str(path) if (path := STUDIES / f"{word}.toml").is_file() else word for word in sys.argv[1:]]
    try:
        with printed():
            arguments = parse(["study", *words])
            points = run_study(arguments)
    except JointgenError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_status)
    if points:
        draw_curve(points, Path(arguments.out or Path("runs") / Path(arguments.study).stem) / "curve.png")


def draw_curve(points: Sequence[Point], path: Path) -> None:
    """Draw the labelled points, and a line through the mean of each row over its seeds."""
    named: dict[str, list[tuple[float, float]]] = {}
    for point in points:
        named.setdefault(point.run.name, []).append((point.across, point.up))
    canvas = pyplot.Figure(figsize=(7.0, 4.5), layout="constrained")
    plot = canvas.subplots()
    means = {name: tuple(sum(each) / len(of) for each in zip(*of, strict=True)) for name, of in named.items()}
    along = sorted(means.values(), key=lambda point: point[1])
    plot.plot(*zip(*along, strict=True), color="0.7", zorder=1)
    for name, of in named.items():
        plot.scatter(*zip(*of, strict=True), s=18, zorder=2)
        plot.annotate(name, means[name], xytext=(5, 5), textcoords="offset points", fontsize=8)
    plot.margins(0.15)  # room for the names
    plot.set(xlabel=points[0].titles[0], ylabel=points[0].titles[1])
    canvas.savefig(path, dpi=130)
    print(path)


if __name__ == "__main__":
    main()
