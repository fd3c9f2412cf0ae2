"""Commands of a tutorial, `!jointgen ...`, print what they print into a file, and one that fails ends the build."""

import subprocess

from IPython import get_ipython


def system(command: str) -> None:
    """Run a command of the shell and print its output.

    Raises:
        RuntimeError: It fails.
    """
    done = subprocess.run(["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(done.stdout, end="")
    if done.returncode:
        raise RuntimeError(f"exit status {done.returncode}: {command}")


get_ipython().system = system
