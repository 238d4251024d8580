"""``python -m snflow``: the command line."""

import sys

from snflow.cli.main import command

if __name__ == "__main__":
    sys.exit(command())
