"""`python -m jointgen` is the command line."""

import sys

from jointgen.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
