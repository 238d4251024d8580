"""Calls that a user gets wrong, and files that are wrong: each ends in one line of our own."""

from __future__ import annotations

import contextlib
import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from nightly.check import check, require
from nightly.subjects import LAYERS, READY, Subject, flow_of, layer_of
from snflow.cli.main import main
from snflow.errors import SnflowError
from snflow.testing import checks
from snflow.train.run_folder import RunFolder


def wrong_calls(subject: Subject) -> None:
    """Raise a fault unless every wrong call of a flow raises an error of the library, in one line."""
    flow, x, c = subject.flow, subject.data(4), subject.context(4)
    z = flow.encode(x, c)
    other = x.new_zeros(4, 2) if c is None else None
    short = None if c is None else c[1:]
    calls: dict[str, Callable[[], object]] = {
        "rank": lambda: flow.log_prob(x[..., None], c),
        "scalar": lambda: flow.log_prob(x.new_zeros(()), c),
        "another event": lambda: flow.log_prob(torch.cat([x, x], -1), c),
        "one row without a batch": lambda: flow.log_prob(x[0], c),
        "integers": lambda: flow.log_prob(x.long(), c),
        "booleans": lambda: flow.log_prob(x > 0, c),
        "complex": lambda: flow.log_prob(x.to(torch.complex128), c),
        "another precision": lambda: flow.log_prob(x.float(), c),
        "half": lambda: flow.log_prob(x.half(), c),
        "bfloat16": lambda: flow.log_prob(x.bfloat16(), c),
        "meta": lambda: flow.log_prob(x.to("meta"), c),
        "sparse": lambda: flow.log_prob(x.to_sparse(), c),
        "array": lambda: flow.log_prob(x.numpy(), c),
        "list": lambda: flow.log_prob(x.tolist(), c),
        "none": lambda: flow.log_prob(None, c),
        "a missing or a superfluous context": lambda: flow.log_prob(x, other),
        "context of fewer rows": lambda: flow.log_prob(x, short if c is not None else x),
        "context as an array": lambda: flow.log_prob(x, np.zeros((4, 2))),
        "base of an array": lambda: flow.base.log_prob(z.detach().numpy()),
        "latents of another shape": lambda: flow.decode(z[..., None], c),
        "latents in another precision": lambda: flow.decode(z.float(), c),
        "method": lambda: flow.decode(z, c, inverse="magic"),
        "no samples": lambda: flow.sample(-1, c),
        "half a sample": lambda: flow.sample(2.5, c),
        "temperature": lambda: flow.sample(2, c, temperature=-1.0),
        "temperature nan": lambda: flow.sample(2, c, temperature=float("nan")),
        "samples of another context": lambda: flow.sample(2, x.new_zeros(4, 9)),
        "nested": lambda: flow.log_prob(torch.nested.nested_tensor([x[0], x[1]]), c),
    }
    for name, call in calls.items():
        try:
            call()
        except SnflowError as error:
            require("\n" not in str(error) and "expected" in str(error), f"{subject.name}, {name}: {error!r}")
        except Exception as error:
            raise AssertionError(f"{subject.name}, {name}: {type(error).__name__}: {str(error)[:200]}") from error
        else:
            require(False, f"{subject.name}, {name}: nothing is raised")


@check(
    "wrong shape, dtype, device, context or number: one line of our own error",
    nightly=LAYERS + 12 * len(READY),
    chunk=60,
)
def misuse(seed: int, folder: Path) -> None:
    """Layers by turns, then 28 wrong calls of each ready flow."""
    turn = seed % (LAYERS + 2 * len(READY))
    if turn < LAYERS:
        checks.check_refusals(layer_of(turn)[1])
    else:
        wrong_calls(flow_of(turn))


def table(rows: int, draw: np.random.Generator) -> np.ndarray:
    """A good table of three columns."""
    return draw.normal(size=(rows, 3))


def _csv(values: object, path: Path) -> None:
    np.savetxt(path, values, delimiter=",", fmt="%s")


BAD: dict[str, Callable[[Path, np.random.Generator], object]] = {
    "empty": lambda p, d: p.write_text(""),
    "one row": lambda p, d: _csv(table(1, d), p),
    "two rows": lambda p, d: _csv(table(2, d), p),
    "header only": lambda p, d: p.write_text("a,b,c\n"),
    "all nan": lambda p, d: _csv(np.full((60, 3), np.nan), p),
    "one nan": lambda p, d: _csv(np.where(np.arange(180).reshape(60, 3) == 77, np.nan, table(60, d)), p),
    "one inf": lambda p, d: _csv(np.where(np.arange(180).reshape(60, 3) == 77, np.inf, table(60, d)), p),
    "constant column": lambda p, d: _csv(np.c_[table(60, d)[:, :2], np.ones(60)], p),
    "all constant": lambda p, d: _csv(np.ones((60, 3)), p),
    "duplicate rows": lambda p, d: _csv(np.repeat(table(6, d), 10, 0), p),
    "integers": lambda p, d: _csv(d.integers(0, 9, (60, 3)), p),
    "scale 1e30": lambda p, d: _csv(1e30 * table(60, d), p),
    "scale 1e-30": lambda p, d: _csv(1e-30 * table(60, d), p),
    "heavy tails": lambda p, d: _csv(d.standard_t(2, (60, 3)), p),
    "mixed scales": lambda p, d: _csv(table(60, d) * np.array([1e-12, 1, 1e12]), p),
    "words": lambda p, d: p.write_text("a,b\n" + "x,y\n" * 60),
    "a word in a row": lambda p, d: p.write_text("1,2\n" * 30 + "1,two\n" + "1,2\n" * 30),
    "ragged": lambda p, d: p.write_text("1,2,3\n" * 30 + "1,2\n" + "1,2,3\n" * 30),
    "semicolons": lambda p, d: p.write_text("1,5;2,5\n" * 60),
    "bytes": lambda p, d: p.write_bytes(d.bytes(500)),
    "null bytes": lambda p, d: p.write_bytes(b"\0" * 500),
    "utf-16": lambda p, d: p.write_bytes("1,2\n".encode("utf-16") * 60),
    "thousands": lambda p, d: p.write_text('"1,000",2\n' * 60),
    "a folder": lambda p, d: p.mkdir(),
    "missing": lambda p, d: None,
    "1e400": lambda p, d: p.write_text("1e400,2\n" * 60),
    "npy of objects": lambda p, d: np.save(p.with_suffix(".npy"), np.array([[1, "a"]] * 60, dtype=object)),
    "npy of text": lambda p, d: np.save(p.with_suffix(".npy"), np.array([["1", "a"]] * 60)),
    "npy cut short": lambda p, d: _cut(p, d),
    "npy with a damaged header": lambda p, d: _damaged_header(p, d),
    "npy of one dimension": lambda p, d: np.save(p.with_suffix(".npy"), np.arange(60.0)),
    "npy of complex numbers": lambda p, d: np.save(p.with_suffix(".npy"), table(60, d).astype(complex)),
}


def _cut(path: Path, draw: np.random.Generator) -> None:
    path = path.with_suffix(".npy")
    np.save(path, table(60, draw))
    path.write_bytes(path.read_bytes()[: -int(draw.integers(1, 700))])


def _damaged_header(path: Path, draw: np.random.Generator) -> None:
    path = path.with_suffix(".npy")
    np.save(path, table(60, draw))
    content = bytearray(path.read_bytes())
    content[int(draw.integers(0, 118))] ^= int(draw.integers(1, 256))
    path.write_bytes(content)


@check(
    "a table that is empty, constant, NaN, of other types, damaged, …: exit code 2 or 3 and one line, or a finite"
    " likelihood",
    nightly=8 * len(BAD),
    chunk=len(BAD),
)
def bad_data(seed: int, folder: Path) -> None:
    """One kind of bad table by turns, through the command line and one epoch of training."""
    name = list(BAD)[seed % len(BAD)]
    path = folder / f"table{seed}.csv"
    BAD[name](path, np.random.default_rng(seed))
    path = path.with_suffix(".npy") if path.with_suffix(".npy").exists() else path
    flow = random.choice(["dense", "maf", "realnvp"])
    run = folder / f"run{seed}"
    words = ["fit", f"table_{flow}", "--data.path", str(path), "--out", str(run), "--epochs", "1", "--device", "cpu"]
    code, _, complained = called([*words, "--batch_size", "10"])
    if code == 0:
        found = (RunFolder(run).read_summary() or {}).get("test_nll_nats", np.nan)
        require(bool(np.isfinite(found)), f"{name}: test likelihood {found}")
    else:
        require(code in (2, 3), f"{name}: exit code {code}")
        require(complained.count("\n") == 1, f"{name}: {complained!r}")


def called(words: list[str]) -> tuple[int, str, str]:
    """Run a command in this process; return its exit code and what it printed and complained."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(words)
    return code, out.getvalue(), err.getvalue()
