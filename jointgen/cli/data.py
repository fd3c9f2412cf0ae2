"""`jointgen data prepare` and `jointgen data verify`: images decoded once, for fast training."""

from __future__ import annotations

import signal

from jointgen.cli.arguments import Arguments
from jointgen.errors import StoppedError
from jointgen.images import prepare
from jointgen.runtime.console import log_once, say
from jointgen.runtime.progress import Counter


def data_command(arguments: Arguments) -> None:
    """Prepare a folder of images, or verify a prepared one."""
    _verify(arguments) if arguments.action == "verify" else _prepare(arguments)


def _prepare(arguments: Arguments) -> None:
    source, dest = arguments.source, arguments.destination
    try:
        with Counter("preparing") as counter:
            manifest, worked = prepare.prepare_images(
                source,
                dest,
                arguments.size,
                arguments.channels,
                workers=arguments.workers or 0,
                max_broken=arguments.max_broken,
                test_fraction=arguments.test_fraction,
                progress=counter,
            )
    except KeyboardInterrupt:
        raise StoppedError(f"{dest}: stopped; run the same command again to continue", signal.SIGINT) from None
    lines = prepare.report(manifest)
    log_once(*lines.skipped)
    say(f"{dest}: {lines.held}" + ("" if worked else "; it was finished before, and nothing was done"))
    say(f"train on it: jointgen run RECIPE --set data.type=prepared --set data.path={dest}")


def _verify(arguments: Arguments) -> None:
    dest = arguments.destination
    with Counter("verifying") as counter:
        manifest = prepare.verify(dest, counter)
    if not manifest.sha256:
        log_once(
            f"{dest}: an earlier version prepared it and its manifest has no hash: a change there may go unnoticed"
        )
    rows = " + ".join(f"{split.rows} {name}" for name, split in manifest.splits.items())
    labels = f"labels of {len(manifest.classes)} classes" if manifest.classes else "no labels"
    checked = f"the manifest agrees with itself, and {len(manifest.stored)} files with the manifest to the last byte"
    say(f"{dest}: {checked} ({rows} images, {labels})")
