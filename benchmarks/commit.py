"""Which commit a page was measured at."""

import subprocess


def commit() -> str:
    """The hash of the commit that is checked out; empty outside of a repository."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    return done.stdout.strip()
