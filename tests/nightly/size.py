"""Many dimensions: no overflow, and memory in proportion to the data and the weights."""

from __future__ import annotations

import math
import resource
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

import snflow
from nightly.check import check, within
from nightly.contract import off
from nightly.runs import Child
from snflow import nets
from snflow.bijections.coupling import halves

ROWS = 8


def _coupling(features: int) -> nn.Module:
    net = nets.MLP(features // 2, features, width=4, depth=1)
    return snflow.Coupling(halves(features, 0), snflow.AffineTransformer(), net)


KINDS: dict[str, tuple[Callable[[int], nn.Module], Callable[[int], tuple[int, ...]]]] = {
    "LeakyReLU": (lambda d: snflow.LeakyReLU(), lambda d: (d,)),
    "SmoothLeakyReLU": (lambda d: snflow.SmoothLeakyReLU(), lambda d: (d,)),
    "Affine": (lambda d: snflow.Affine(torch.zeros(d), torch.full((d,), 2.0)), lambda d: (d,)),
    "ActNorm": (lambda d: snflow.ActNorm(d, vectors=True), lambda d: (d,)),
    "rational-quadratic spline": (lambda d: snflow.rational_quadratic_spline((d,), bins=4), lambda d: (d,)),
    "Permutation": (lambda d: snflow.Permutation(torch.randperm(d)), lambda d: (d,)),
    "Coupling": (_coupling, lambda d: (d,)),
    "Conv2d 1×1": (lambda d: snflow.Conv2d(3, 1), lambda d: (3, math.isqrt(d // 3), math.isqrt(d // 3))),
    "SelfNormalizingConv2d 1×1": (
        lambda d: snflow.SelfNormalizingConv2d(3, 1),
        lambda d: (3, math.isqrt(d // 3), math.isqrt(d // 3)),
    ),
}
SIZES = (3072, 65_536, 2**20)


@check(
    "layers of 3,072, 65,536 and 1,048,576 dimensions, 8 rows, float32: round trip 1e-4, log-determinant against "
    "float64, peak memory within 50 tensors of data beside the weights",
    nightly=2 * len(KINDS) * len(SIZES),
    chunk=9,
)
def huge(seed: int, folder: Path) -> float:
    """One layer and size by turns, in a process of its own whose peak is measured."""
    name, features = list(KINDS)[seed % len(KINDS)], SIZES[seed // len(KINDS) % len(SIZES)]
    answer = folder / f"answer-{seed}"
    code = Child(_measure, name, features, str(answer)).wait()
    assert code == 0, f"{name}, D = {features}: the process ends with {code}"
    error, log_det, grown, weights = map(float, answer.read_text().split())
    what = f"{name}, D = {features}"
    within(f"{what}: round trip", error, 1e-4)
    within(f"{what}: log_det, in parts of 1e-8·D + 1e-6·|log_det|", log_det, 1.0)
    data = 4 * ROWS * features
    return within(f"{what}: memory in tensors of data", (grown - 3 * weights - 32 * 2**20) / data, 50)


def _measure(name: str, features: int, answer: str) -> None:
    build, shape = KINDS[name]
    torch.manual_seed(0)
    layer, x = build(features), torch.randn(ROWS, *shape(features))
    weights = sum(t.numel() * 4 for t in layer.state_dict().values())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with torch.no_grad():
        layer.train()(x)
        z, log_det = layer.eval()(x)
        error = off(layer.decode(z), x)
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        exact = layer.double()(x.double())[1]
    allowed = 1e-8 * x[0].numel() + 1e-6 * exact.abs()
    off_by = float(((log_det.double() - exact).abs() / allowed).max())
    Path(answer).write_text(f"{error} {off_by} {grown} {weights}")
