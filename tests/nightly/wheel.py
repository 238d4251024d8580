"""The installed wheel outside of the checkout: the demo's recipe, its help and its files.

The environment sees the dependencies of this one through a path file; editable installs are not found through it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path


def main(folder: Path) -> None:
    """Run the demo for one epoch from the environment in a folder."""
    python = folder / "venv" / "bin" / "python"
    site = next((folder / "venv" / "lib").glob("python3.*")) / "site-packages"
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}

    def run(*words: str) -> str:
        done = subprocess.run(
            [python, *words], cwd=folder / "run", env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run("-c", "import snflow; print(snflow.__file__)").strip()
    assert Path(where).is_relative_to(site), f"snflow comes from {where}"
    assert "digits_conv" in run("-m", "snflow", "recipes")
    words = ["digits_conv", "--epochs", "1", "--out", "demo", "--device", "cpu"]
    assert "exact test negative log-likelihood" in run("-m", "snflow", "fit", *words)
    assert "exact test NLL" in run("-m", "snflow", "evaluate", "demo")
    assert (folder / "run" / "demo" / "summary.json").is_file()
    print(f"the wheel works: {where}")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
