"""One page of all the tables and figures, the paper's numbers beside ours, from what lies in ``results/``."""

from __future__ import annotations

import json
import os
from pathlib import Path

from snflow.training.reproduce.page import table, title_of
from snflow.training.reproduce.records import read_records
from snflow.training.reproduce.targets import TARGETS, Target
from snflow.training.reproduce.time_page import dimensions_table, times_table


def write_overview(page: Path, results: Path) -> None:
    """Write the page.

    Args:
        page: the file.
        results: the folder with a folder for each target; one that is not there is said to be not run.
    """
    lines = [
        "# The paper and this library",
        "",
        "Every table and figure of Keller et al. (2021), Self Normalizing Flows, that was run here, beside its",
        "numbers. Written by `snflow reproduce overview` from the results; each title leads to the runs, their",
        "commands, commits and machine. A run of fewer epochs than the paper's is called short in its line.",
        "",
    ]
    for name, target in TARGETS.items():
        folder = results / name
        link = Path(os.path.relpath(folder, page.parent)).as_posix()
        there = (folder / "README.md").is_file()
        title = f"{title_of(name)}: {target.title}"
        lines += [f"## [{title}]({link}/README.md)" if there else f"## {title}", ""]
        lines += [*_content(folder, target), ""] if there else ["Not run yet.", ""]
        if (folder / "picture.png").is_file():
            lines += [f"![{target.title}]({link}/picture.png)", ""]
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text("\n".join(lines), encoding="utf-8")


def _content(folder: Path, target: Target) -> list[str]:
    if target.kind not in ("time", "dimension"):
        return table(target, read_records(folder / "runs.jsonl"))
    rows = [json.loads(line) for line in (folder / "times.jsonl").read_text(encoding="utf-8").splitlines()[1:]]
    if target.kind == "time":
        return times_table(target, rows)
    return dimensions_table({row["row"]: [(int(d), float(ms)) for d, ms in row["ms_by_dimension"]] for row in rows})
