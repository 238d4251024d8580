"""Where the time goes in the rows of the table of speed that miss their goal: shares by operation, for our contender.

python benchmarks/profiles.py --bench results/bench

Reads runs.jsonl and writes profiles.md beside it. "outside operations" is the time of autograd and the optimizer
themselves; Python between two operations is not counted.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from measurement import commit
from rows import ROWS
from snflow.cli.main import keep_freed_memory

OURS = ("self-normalizing", "dense_snf", "snf", "learned", "conv_snf", "snflow")
MOST, SHOWN = 40, 7


def shares(act: Callable[[], object]) -> tuple[float, int, list[tuple[str, float]]]:
    """Milliseconds of one call, its number of operations, and the shares of time by operation."""
    for _ in range(3):
        act()
    began = time.perf_counter()
    act()
    count = max(2, min(MOST, int(1 / (time.perf_counter() - began))))
    began = time.perf_counter()
    for _ in range(count):
        act()
    seconds = (time.perf_counter() - began) / count
    with profile(activities=[ProfilerActivity.CPU]) as measured:
        for _ in range(count):
            act()
    events = [event for event in measured.key_averages() if event.key.startswith("aten::")]
    spent = {event.key.removeprefix("aten::"): event.self_cpu_time_total for event in events}
    total = sum(event.self_cpu_time_total for event in measured.key_averages())
    calls = sum(event.count for event in events) // count
    largest = sorted(spent.items(), key=lambda item: -item[1])[:SHOWN]
    outside = 1 - sum(spent.values()) / total
    return 1000 * seconds, calls, [*((name, one / total) for name, one in largest), ("outside operations", outside)]


def main() -> None:
    """Profile every row that misses its goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bench", type=Path, default=Path("runs/bench"))
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()
    warnings.simplefilter("ignore")
    records = map(json.loads, (arguments.bench / "runs.jsonl").read_text().splitlines())
    missed = {record["row"] for record in records if any(not demand["met"] for demand in record["demands"])}
    text = f"""# Where the time goes in rows that miss their goal

Shares of the time of one call by torch operation, and the number of operations per call. Written by
`python benchmarks/profiles.py --bench {arguments.bench}` at commit `{commit():.12}`, {arguments.threads}
threads.

| row | contender | ms | operations | where the time goes |
|---|---|---|---|---|
"""
    for row in ROWS:
        if row.name in missed:
            contenders = row.make()
            name = next(name for name in OURS if name in contenders)
            milliseconds, calls, found = shares(contenders[name])
            shown = ", ".join(f"{operation} {share:.0%}" for operation, share in found)
            text += f"| {row.name} | {name} | {milliseconds:.3g} | {calls} | {shown} |\n"
            print(text.splitlines()[-1], flush=True)
    (arguments.bench / "profiles.md").write_text(text)


if __name__ == "__main__":
    main()
