"""What a run leaves on the disk, and the comparison of two runs: all values to the bit, times aside."""

import csv
import json
import math
from pathlib import Path

import torch

from snflow.train.checkpoints import CheckpointStore, read_checkpoint


def last_checkpoint(run):
    """The newest checkpoint of a run."""
    store = CheckpointStore(run / "checkpoints")
    return read_checkpoint(store.path(store.steps()[-1]))


def metrics(run, name="metrics.csv"):
    """The rows of a file of metrics, without times."""
    with (run / name).open(encoding="utf-8") as file:
        return [without_times(row) for row in csv.DictReader(file)]


def contents(run):
    """Every file and folder of a run by its name: what it holds without times; ``None`` for a folder."""
    found = {}
    for path in sorted(set(run.rglob("*")) - {run / ".lock"}):
        name = str(path.relative_to(run))
        if path.parent.name == "checkpoints" and path.name.startswith("step-"):
            found[name] = without_times(vars(read_checkpoint(path)))
        elif path.parent == run and path.suffix == ".csv":
            found[name] = metrics(run, name)
        elif path.parent == run and path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_text()))
        else:
            # The files of a checkpoint are read above, as one.
            found[name] = path.read_bytes() if path.parent == run and path.is_file() else None
    return found


def without_times(value):
    """A nested value without what depends on the clock."""
    if isinstance(value, dict):
        return {key: without_times(item) for key, item in value.items() if not _is_time(key)}
    if isinstance(value, list | tuple):
        return [without_times(item) for item in value]
    return value


def _is_time(key):
    return isinstance(key, str) and ("seconds" in key or key == "slowest_step")


def difference(one, other, place="the run"):
    """Where two nested values differ; ``None`` if they are equal to the bit. A NaN equals another."""
    if type(one) is not type(other):
        return place
    if isinstance(one, dict):
        if one.keys() != other.keys():
            return f"{place}: {sorted(map(str, one.keys() ^ other.keys()))}"
        parts = [(one[key], other[key], f"{place}, {key}") for key in one]
    elif isinstance(one, list):
        if len(one) != len(other):
            return f"{place}: {len(one)} and {len(other)} items"
        parts = [(a, b, f"{place}, {at}") for at, (a, b) in enumerate(zip(one, other, strict=True))]
    else:
        return None if _equal(one, other) else place
    return next(filter(None, (difference(*part) for part in parts)), None)


def _equal(one, other):
    if isinstance(one, torch.Tensor):
        bits = [value.contiguous().reshape(-1).view(torch.uint8) for value in (one, other)]
        return one.dtype == other.dtype and one.shape == other.shape and torch.equal(*bits)
    return one == other or (isinstance(one, float) and math.isnan(one) and math.isnan(other))


class Canvas:
    """Draws nothing, and writes as the real one does; most of the time of a short run is that of its pictures."""

    def __init__(self, figure):
        """Take no figure."""

    def print_png(self, target):
        """Write to a file or to a stream."""
        if isinstance(target, Path):
            target.write_bytes(b"a picture")
        else:
            target.write(b"a picture")


def same_run(one, other, *, older=True):
    """Raise an error unless two runs have left the same files: weights, state, metrics, summary, recipe.

    Args:
        one: Folder of a run.
        other: Folder of another.
        older: Whether checkpoints older than the newest are compared. A signal adds one, and so removes another.
    """
    found = difference(*(contents(run) if older else _with_one_checkpoint(contents(run)) for run in (one, other)))
    assert found is None, f"two runs differ in {found}"


def _with_one_checkpoint(found):
    newest = max(name.split("/")[1] for name in found if "/step-" in name)
    return {name: value for name, value in found.items() if "/step-" not in name or newest in name}
