"""Angle to the exact gradient of log|det T(w)|: inverse kernels by least squares, with and without Neumann terms.

.venv/bin/python benchmarks/neumann.py > results/neumann/README.md
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from snflow import Penalty, SelfNormalizingConv2d
from snflow.numerics.operators.conv import ConvOperator

EVENT = (4, 14, 14)
SPREADS = (0.05, 0.1, 0.15, 0.2)
SIZES = (3, 5, 7)
TERMS = (0, 1, 5, 20)
PROBES = (8, 64)
DRAWS = 5
"""Number of kernels for each spread; the page shows medians."""

INTRODUCTION = f"""# The log-det gradient of a convolution whose inverse is not a convolution

Kernels w = identity + spread · Gaussian, 3×3, on images of {" × ".join(map(str, EVENT))}, zero padding; the inverse
kernel r of each size is fitted by least squares. Shown is the angle in degrees between the gradient of log|det T(w)|
that the layer uses and the exact one from the dense matrix: medians over {DRAWS} kernels, in float64. K Neumann terms
are estimated with 8 and with 64 Rademacher probes. The condition is that of the dense matrix, the residual is
‖I − A(r) A(w)‖/√D. Written by `benchmarks/neumann.py`.

| spread | condition | r | residual | K = 0 | """


def main() -> None:
    """Print the page."""
    head = [f"K = {terms}, {probes} probes" for terms in TERMS[1:] for probes in PROBES]
    print(INTRODUCTION + " | ".join(head) + " |")
    print("|" + "---|" * (5 + len(head)))
    torch.set_default_dtype(torch.float64)
    for spread in SPREADS:
        for size in SIZES:
            rows = []
            for draw in range(DRAWS):
                torch.manual_seed(draw)
                rows.append(angles(spread, size))
            condition, residual, *degrees = torch.tensor(rows).median(0).values.tolist()
            cells = " | ".join(f"{d:.2f}" for d in degrees)
            print(f"| {spread:g} | {condition:.3g} | {size}×{size} | {residual:.2g} | {cells} |")


def angles(spread: float, size: int) -> list[float]:
    """Condition, residual and the angle for each number of terms and probes, for one random kernel."""
    weight = torch.zeros(EVENT[0], EVENT[0], 3, 3)
    weight[range(EVENT[0]), range(EVENT[0]), 1, 1] = 1
    weight += spread * torch.randn_like(weight)
    layer = SelfNormalizingConv2d(EVENT[0], 3, inverse_kernel_size=size, tracking=Penalty(weight=0.0))
    layer.weight.data = weight
    layer.refresh_inverse(EVENT)
    matrix, exact = dense(weight)
    found = [float(torch.linalg.cond(matrix)), float(layer.inverse_residual(EVENT, 64))]
    for terms in TERMS:
        counts = PROBES if terms else (1,)
        found += [angle(gradient(layer, terms, probes), exact) for probes in counts]
    return found


def dense(weight: Tensor) -> tuple[Tensor, Tensor]:
    """The matrix of the convolution, and the exact gradient of log|det| with respect to the kernel."""
    kernel = weight.clone().requires_grad_()
    units = torch.eye(math.prod(EVENT)).view(-1, *EVENT)
    matrix = ConvOperator(3).product(kernel, units).flatten(1).mT
    torch.linalg.slogdet(matrix).logabsdet.backward()
    assert kernel.grad is not None
    return matrix.detach(), kernel.grad


def gradient(layer: SelfNormalizingConv2d, terms: int, probes: int) -> Tensor:
    """The gradient that a training forward of ``layer`` delivers for its kernel, with this many Neumann terms."""
    twin = SelfNormalizingConv2d(
        EVENT[0],
        3,
        inverse_kernel_size=layer.inverse_weight.shape[-1],
        tracking=Penalty(weight=0.0, guard=False, neumann_terms=terms, neumann_probes=probes),
    )
    twin.load_state_dict(layer.state_dict())
    twin(torch.zeros(1, *EVENT))[1].sum().backward()
    assert twin.weight.grad is not None
    return twin.weight.grad


def angle(one: Tensor, other: Tensor) -> float:
    """The angle between two gradients, in degrees."""
    one, other = (g.flatten() / g.norm() for g in (one, other))
    return 2 * math.degrees(math.atan2(float((one - other).norm()), float((one + other).norm())))


if __name__ == "__main__":
    main()
