"""Speed: the contenders of each row in turns, medians, compared with a lower bound, the exact gradient or a peer.

python benchmarks/bench.py --seconds 3 --rows '*' --out results/bench

Peers are measured if they are installed: `pip install zuko nflows normflows torchflows`. The machine must be idle. Rows
measured before are kept; the named rows are measured again.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import warnings
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from measurement import commit
from rows import ROWS
from snflow.cli.main import keep_freed_memory

SHORT = ("dense_784", "dense_step", "conv_sample", "conv_log_det_32", "spline", "maf_step_16")
"""The rows of `make bench`."""


def main() -> None:
    """Measure the requested rows, then write the page of all rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long each contender is measured")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"), help="the device of all contenders")
    parser.add_argument("--rows", default="", help="patterns of row names, separated by commas")
    parser.add_argument("--full", action="store_true", help="measure every row instead of the short form")
    parser.add_argument("--out", type=Path, default=Path("runs/bench"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.device != "cpu":
        # Not for the CPU: a default device is a mode that every call of torch passes through.
        torch.set_default_device(arguments.device)
    keep_freed_memory()  # as in `snflow fit`; it holds for the peers too
    warnings.simplefilter("ignore")  # from the peers
    patterns = arguments.rows.split(",") if arguments.rows else ["*"] if arguments.full else list(SHORT)
    arguments.out.mkdir(parents=True, exist_ok=True)
    file = arguments.out / "runs.jsonl"
    found = {row["row"]: row for row in map(json.loads, file.read_text().splitlines())} if file.exists() else {}
    for row in ROWS:
        if any(fnmatch(row.name, pattern) for pattern in patterns):
            record = row.measure(arguments.seconds) | _facts(arguments)
            found[row.name] = record
            shown = ", ".join(f"{name} {ms:.3g}" for name, ms in record["median_ms"].items())
            print(f"{row.name:26} {shown} ms", flush=True)
            for demand in record["demands"]:
                print(f"{'':26} {demand['demand']}: {demand['ratio']:.2f} {'met' if demand['met'] else 'MISSED'}")
            ordered = [found[one.name] for one in ROWS if one.name in found]
            file.write_text("".join(json.dumps(one) + "\n" for one in ordered))
            (arguments.out / "README.md").write_text(page(ordered))


def _facts(arguments: argparse.Namespace) -> dict[str, Any]:
    def installed(name: str) -> str | None:
        try:
            return version(name)
        except PackageNotFoundError:
            return None

    names = ("snflow", "torch", "zuko", "nflows", "normflows", "torchflows")
    return {
        "command": f"python benchmarks/bench.py {' '.join(sys.argv[1:])}",
        "commit": commit(),
        "versions": {name: found for name in names if (found := installed(name))},
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu",
        "threads": arguments.threads,
    }


def where(row: dict[str, Any]) -> str:
    """Describe the machine."""
    computer = f"{row['threads']} threads, {row['cores']} cores ({row['machine']})"
    return computer if row.get("device", "cpu") == "cpu" else f"On one {row['device']}, with {computer}"


def page(rows: list[dict[str, Any]]) -> str:
    """The Markdown table."""
    versions = ", ".join(f"{name} {found}" for name, found in sorted(rows[-1]["versions"].items()))
    commits = ", ".join(sorted({f"`{row['commit']:.12}`" for row in rows}))
    text = f"""# Speed

Medians in milliseconds, and peak memory of tensors in MiB above what stays alive between calls. The contenders of a row
took turns in one process. {where(rows[-1])},
at commit {commits}; {versions}. Freed memory is kept for the next step, as in `snflow fit`, for all contenders.
`runs.jsonl` has each row's command, quartiles and number of repetitions. A row that misses its goal is marked.

For the seconds to an equal likelihood see [wall_time](../wall_time/README.md); for growth with size,
[growth](../growth/README.md); for compiled and recorded steps, [recorded](../recorded/README.md); for the overhead of
the training loop, [loop](../loop/README.md).

| what | ms | MiB | goal | measured | |
|---|---|---|---|---|---|
"""
    for row in rows:
        shown = [
            "; ".join(f"{name} {cost:.3g}" for name, cost in row.get(costs, {}).items())
            for costs in ("median_ms", "peak_mib")
        ]
        shown[0] += "".join(f"; {name} {ms:.3g} (not run here)" for name, ms in row.get("published_ms", {}).items())
        demands = row["demands"] or [{"demand": "–", "ratio": float("nan"), "met": True}]
        for number, demand in enumerate(demands):
            what, ms, mib = (row["what"], *shown) if number == 0 else ("", "", "")
            state = "" if demand["met"] else "**missed**"
            text += f"| {what} | {ms} | {mib} | {demand['demand']} | {demand['ratio']:.2f} | {state} |\n"
    return text


if __name__ == "__main__":
    main()
