"""Weights that are close to singular."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from pathlib import Path

import torch

import snflow
from nightly.check import Found, check, require
from snflow.errors import NotInvertibleError, NumericalWarning

LAYERS: dict[str, Callable[[int], torch.nn.Module]] = {
    "Dense": snflow.Dense,
    "SelfNormalizingDense": snflow.SelfNormalizingDense,
    "SelfNormalizingDense, refined": snflow.SelfNormalizingDense,
    "Conv2d 1×1": lambda n: snflow.Conv2d(n, 1),
    "SelfNormalizingConv2d 1×1": lambda n: snflow.SelfNormalizingConv2d(n, 1),
}


@check(
    "condition 1e1 … 1e12: a solve is right to 5 · condition · eps, and warns or raises where it is off by over "
    "1e-2, not below condition 1e3; a singular, NaN or infinite weight raises in train() and eval()",
    nightly=1200,
    chunk=200,
    short=30,
)
def condition(seed: int, folder: Path) -> Found:
    """One layer, size, dtype and condition per case."""
    torch.manual_seed(seed)
    name = list(LAYERS)[seed % len(LAYERS)]
    dtype = torch.float32 if seed // len(LAYERS) % 2 else torch.float64
    size, exponent = int(torch.randint(2, 9, ())), float(1 + 11 * torch.rand(()))
    layer = LAYERS[name](size).to(dtype).eval()
    left, right = (torch.linalg.qr(torch.randn(size, size, dtype=torch.float64))[0] for _ in range(2))
    singular_values = torch.logspace(0, -exponent, size, dtype=torch.float64)
    weight = (left * singular_values) @ right
    with torch.no_grad():
        layer.weight.copy_(weight.reshape(layer.weight.shape))
        x = torch.randn(20, *((size, 1, 1) if "Conv" in name else (size,)), dtype=dtype)
        error, spoken = _solved(layer, x, "refined" if "refined" in name else None)
    # the condition of the weight as it was rounded
    values = torch.linalg.svdvals(layer.weight.detach().double().reshape(size, size))
    bound = 5 * float(values[0] / values[-1]) * torch.finfo(dtype).eps
    what = f"{name} {dtype}, condition 1e{exponent:.1f}: off by {error:.1e}"
    require(spoken or error <= max(bound, 1e-12) * math.sqrt(size), f"{what}, bound {bound:.1e}")
    require(spoken or error <= 1e-2, f"{what} in silence")
    require(not spoken or exponent > 3, f"{what}, and yet a warning")
    _spoilt(name, layer, x, seed)
    return Found(error / max(bound, 1e-12) if not spoken else None, {"warned or refused": int(spoken)})


def _solved(layer: torch.nn.Module, x: torch.Tensor, method: str | None) -> tuple[float, bool]:
    """The error of W⁻¹(Wx), and whether there was a warning or an error."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            z = layer.encode(x)
            back = layer.decode(z, inverse=method)
        except NotInvertibleError:
            return torch.inf, True
    error = (back - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)
    return float(error.nan_to_num(torch.inf).max()), any(issubclass(w.category, NumericalWarning) for w in said)


def _spoilt(name: str, layer: torch.nn.Module, x: torch.Tensor, seed: int) -> None:
    """A singular or non-finite weight raises; the learned rules have a log-determinant from before in training."""
    with torch.no_grad():
        match seed % 3:
            case 0:
                layer.weight.zero_()
            case 1:
                layer.weight.view(-1)[0] = torch.nan
            case 2:
                layer.weight.view(-1)[0] = torch.inf
    for training in (False, True):
        if training and name.startswith("SelfNormalizing"):
            continue
        try:
            log_det = layer.train(training)(x)[1]
        except NotInvertibleError as error:
            require(name.split()[0].rstrip(",") in str(error), f"{name}: the error names no layer: {error}")
        else:
            require(False, f"{name}, train={training}: log_det {log_det[0].item()} of a weight without an inverse")
