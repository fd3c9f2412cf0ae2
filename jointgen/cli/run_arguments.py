"""What commands on runs check of their arguments before the seconds that torch takes. Torch-free."""

from __future__ import annotations

import os

from jointgen.cli.arguments import Arguments
from jointgen.cli.output_files import check_output
from jointgen.errors import Problems
from jointgen.runs.folder import RunFolder
from jointgen.runs.hub import PREFIX
from jointgen.runtime.regular_files import check_regular, user_path


def check_run_arguments(arguments: Arguments) -> None:
    """Check that the run and the files that the command reads are there, and that what -o names can be written.

    The command works with `arguments.output`, which is an `Output` afterwards.

    Raises:
        ConfigError: With every problem.
    """
    problems = Problems()
    if not arguments.run.startswith(PREFIX):  # one of the hub is fetched when it is opened
        with problems.collect():
            RunFolder.open(arguments.run)
    read = _files_read(arguments)
    for option, path in read:
        with problems.collect(option):
            if not (option == "--images" and os.path.isdir(user_path(path))):
                check_regular(user_path(path))
    if hasattr(arguments, "endings"):
        with problems.collect():
            arguments.output = check_output(arguments.output, *arguments.endings, inputs=[path for _, path in read])
    problems.raise_any()


def _files_read(arguments: Arguments) -> list[tuple[str, str]]:
    """Every file or folder that the command reads besides the run, with the option that names it."""
    one = [("--values", "values"), ("CODES", "codes"), ("--mask", "mask")]
    named = [(option, path) for option, key in one if (path := getattr(arguments, key, None)) is not None]
    return [*(("--images", path) for path in getattr(arguments, "images", None) or ()), *named]
