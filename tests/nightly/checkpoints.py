"""Checkpoints that the disk has damaged, or that are not what they say."""

from __future__ import annotations

import io
import os
import pickle
import random
import shutil
from pathlib import Path

import torch

from nightly.check import Found, check, require
from nightly.runs import RECIPES, whole
from snflow.errors import CheckpointError
from snflow.train import checkpoints as format_module
from snflow.train.checkpoints import CheckpointStore, read_checkpoint, write_checkpoint

PER_RECIPE = 22


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        """Return the call that unpickling makes."""
        return os.mkdir, (str(self.mark),)


@check(
    "one bit flipped, or the end cut off, anywhere in the newest checkpoint: detected, the one before is taken "
    "and said so; a pickle that would run code is refused",
    nightly=PER_RECIPE * 20,
    chunk=PER_RECIPE,
)
def corruption(seed: int, folder: Path) -> Found:
    """Ten flips, then one truncation; at the end of the recipe's turn a malicious pickle."""
    name = RECIPES[seed // PER_RECIPE % len(RECIPES)]
    _, original = whole(name, folder)
    copy = folder / f"copy-{seed}"
    shutil.copytree(original / "checkpoints", copy)
    store = CheckpointStore(copy)
    newest = store.path(store.steps()[-1])
    before = store.steps()[-2]
    kind = _damage(newest, seed, folder)
    try:
        read_checkpoint(newest)
    except CheckpointError as error:
        require("\n" not in str(error), f"the message has several lines: {error}")
    else:
        require(False, f"{name}: {kind} is not detected")
    said: list[str] = []
    found = store.latest(said.append)
    require(found.step == before and len(said) == 1, f"{name}, {kind}: step {found.step}, said {said}")
    require(not (folder / "pwned").exists(), f"{name}: the pickle ran")
    shutil.rmtree(copy)
    return Found(counted={kind: 1})


def _damage(path: Path, seed: int, folder: Path) -> str:
    if seed % PER_RECIPE == PER_RECIPE - 1:
        checkpoint = read_checkpoint(path)
        buffer, original = io.BytesIO(), format_module._state_bytes
        if seed % 2:
            pickle.dump(Attack(folder / "pwned"), buffer, protocol=2)
        else:
            torch.save({"x": Attack(folder / "pwned")}, buffer)
        format_module._state_bytes = lambda state: buffer.getvalue()
        try:
            write_checkpoint(path, checkpoint)
        finally:
            format_module._state_bytes = original
        return "malicious pickle"
    file = random.choice(sorted(path.iterdir()))
    content = bytearray(file.read_bytes())
    at = random.randrange(len(content))
    if seed % 11 == 10:
        file.write_bytes(content[:at])
        return "truncation"
    content[at] ^= 1 << random.randrange(8)
    file.write_bytes(content)
    return "bit flip"
