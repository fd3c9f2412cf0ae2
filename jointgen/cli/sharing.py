"""`jointgen export` and `jointgen push`: a trained model for other programs, and for other people."""

from __future__ import annotations

from importlib import metadata

from jointgen.cli.arguments import Arguments
from jointgen.cli.models import open_model_of
from jointgen.cli.output_files import Output, writing_output
from jointgen.errors import placing_options
from jointgen.inference.export import export_part
from jointgen.reports.sharing import push, save_pretrained
from jointgen.runs.folder import RunFolder
from jointgen.runtime.atomic_files import replace_bytes
from jointgen.runtime.console import say
from jointgen.runtime.hashing import sha256_of
from jointgen.runtime.regular_files import read_regular


def export_command(arguments: Arguments) -> None:
    """Write a part of a model as a program of torch.export or as ONNX."""
    output: Output = arguments.output
    model, _ = open_model_of(arguments)
    folder = RunFolder.open(arguments.run)
    about = {
        "jointgen": metadata.version("jointgen"),
        "checkpoint": model.checkpoint,
        "recipe_sha256": sha256_of(read_regular(folder.recipe)),
    }
    with placing_options("part", "reading"):
        found = export_part(model, arguments.part, arguments.reading, output.ending, about)
    with writing_output(output.path):
        replace_bytes(output.path, found.data)
    inputs = ", ".join(f"{name} (B{''.join(f', {axis}' for axis in shape)})" for name, shape in found.inputs.items())
    kilobytes = f"{len(found.data) / 1000:,.0f} kB"
    say(f"{output}: {arguments.part}, {kilobytes}; {inputs} -> {arguments.reading or 'the mean, or its only reading'}")
    say(f"largest difference from the model: {found.difference:.2g}")


def push_command(arguments: Arguments) -> None:
    """Write what others need of a run, into a folder or onto the hub."""
    if arguments.repository.endswith(("/", "\\")):
        path = save_pretrained(arguments.run, arguments.repository, checkpoint=arguments.checkpoint)
        say(f"{path}: the model, its figures and its card; load it with jointgen.load({str(path)!r})")
        return
    url = push(arguments.run, arguments.repository, checkpoint=arguments.checkpoint, private=arguments.private)
    say(f'{url}: load it with jointgen.load("hf:{arguments.repository}")')
