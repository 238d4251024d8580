"""Wild weights and inputs, and the edges of supports: finite or −inf, never NaN, and no error in silence."""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

import snflow
from nightly.check import Found, check, require
from nightly.contract import off
from nightly.subjects import flow_of, layer_of
from random_layers import case_of
from snflow.bijections.base import Bijection
from snflow.distributions.flow import Flow
from snflow.errors import NumericalWarning, SnflowError

TOLERANCE = 1e-2
"""Relative error of a round trip above which a result is wrong."""

NUMBERS = (0.0, -0.0, 1.0, -1.0, 2.0, -3.0, 5.0, 10.0, 1e3, -1e3, 1e6, 1e30, -1e30)


def _values(dtype: torch.dtype) -> Tensor:
    """The numbers, one ulp to each side of them, the smallest ones and the largest."""
    limits = torch.finfo(dtype)
    base = torch.tensor([*NUMBERS, limits.tiny, -limits.tiny, limits.max, limits.min], dtype=dtype)
    ends = torch.tensor([torch.inf, -torch.inf], dtype=dtype)
    around = torch.cat([base, base.nextafter(ends[:1]), base.nextafter(ends[1:])])
    return around[around.isfinite()]


@check(
    "weights × e^U(−6, 6), inputs 0, tiny, 1 ± ulp, 1e3, 1e6, 1e30 and the largest float, both dtypes: finite or "
    "−inf, never NaN (a layer on its own: up to the square root of the largest float); a round trip that is off by "
    "over 1e-2 comes with a warning or an error, or the map loses x in its last bit",
    nightly=5000,
    chunk=100,
)
@torch.no_grad()
def fuzz(seed: int, folder: Path) -> Found:
    """Random layers, layers of the catalogue and ready flows by turns."""
    dtype = random.choice([torch.float32, torch.float64])
    spread = random.choice([0.0, 1.0, 6.0])
    kind, turn = seed % 3, seed // 3
    if kind == 2:
        subject = flow_of(turn, dtype=dtype)
        layer: Bijection = subject.flow.bijection
        x, context, name = _points(subject.data, dtype), None, subject.name
        context = subject.context(len(x))
        flow: Flow | None = subject.flow.eval()
    else:
        name, case = case_of(turn) if kind else layer_of(turn)
        layer, context_shape = case.layer().to(dtype), case.build().context_shape
        x = _points(lambda rows: case.data(rows).to(dtype), dtype)
        context = None if context_shape is None else torch.randn(len(x), *context_shape, dtype=dtype)
        flow = None
    x, context = _in_domain(layer, x, context)
    for parameter in layer.parameters():
        parameter.mul_((spread * (2 * torch.rand_like(parameter) - 1)).exp())
    return _judge(name, layer, x, context, flow)


def _in_domain(layer: Bijection, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """The rows on which the layer is defined."""
    inside = layer.domain.check(x).flatten(1).all(1)
    return x[inside], None if context is None else context[inside]


def _points(draw: Callable[[int], Tensor], dtype: torch.dtype) -> Tensor:
    """Ordinary rows, rows of one extreme value, and ordinary rows with one extreme element."""
    values = _values(dtype)
    ordinary = draw(8)
    constant = values.reshape(-1, *[1] * (ordinary.dim() - 1)).expand(-1, *ordinary.shape[1:])
    mixed = draw(len(values)).flatten(1)
    mixed[torch.arange(len(values)), torch.randint(mixed.shape[1], (len(values),))] = values
    return torch.cat([ordinary, constant, mixed.reshape(-1, *ordinary.shape[1:])])


def _judge(name: str, layer: Bijection, x: Tensor, context: Tensor | None, flow: Flow | None) -> Found:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            z, log_det = layer(x, context)
            log_prob = log_det if flow is None else flow.log_prob(x, context)
        except SnflowError as error:
            return Found(counted={type(error).__name__: 1})
        far = x.flatten(1).abs().amax(1) > torch.finfo(x.dtype).max ** 0.5
        bad = log_prob.isnan() | (log_prob == torch.inf)
        if flow is None:
            bad &= ~far
        require(not bool(bad.any()), f"{name} {x.dtype}: log_prob {log_prob[bad][:3].tolist()} at {_rows(x[bad])}")
        lost = z.flatten(1).isnan().any(1) & ~far
        require(not bool(lost.any()), f"{name} {x.dtype}: z is NaN at {_rows(x[lost])}")
        kept = z.flatten(1).isfinite().all(1) & log_prob.isfinite()
        x, z, context = x[kept], z[kept], None if context is None else context[kept]
        try:
            back = layer.decode(z, context)
        except SnflowError as error:
            return Found(counted={f"{type(error).__name__} of the inverse": 1})
        messages = [str(w.message) for w in said if issubclass(w.category, NumericalWarning)]
        overflows = [message for message in messages if "no finite inverse" in message]
        if len(messages) > len(overflows):
            return Found(counted={"warned": 1})
        # a warning about overflow is one about the rows that show it, and about no other
        shown = ~back.flatten(1).isfinite().all(1) & bool(overflows)
        wrong = ~(_by_row(back, x) <= TOLERANCE) & ~shown
        if not bool(wrong.any()):
            return Found(counted={"overflow warned": 1} if bool(shown.any()) else {"right": 1})
        excused = _lost_in_the_last_bit(layer, x, z, back, context) & ~back.flatten(1).isnan().any(1)
    silent = wrong & ~excused
    require(
        not bool(silent.any()),
        f"{name} {x.dtype}: {int(silent.sum())} rows come back wrong in silence, "
        f"off by {off(back[silent], x[silent]):.1e}, first at {_rows(x[silent])}",
    )
    return Found(counted={"lost in the last bit": 1})


def _by_row(got: Tensor, wanted: Tensor) -> Tensor:
    error = (got - wanted).abs() / wanted.abs().clamp_min(1)
    return error.flatten(1).nan_to_num(torch.inf, posinf=torch.inf).amax(1)


def _lost_in_the_last_bit(layer: Bijection, x: Tensor, z: Tensor, back: Tensor, context: Tensor | None) -> Tensor:
    """Whether what came back solves f(x) = z as well as floating point allows, by row.

    Either f(back) is z up to the rounding of z or of ``back``, or a change of z in its last bits moves x as far.
    """
    error, size = _by_row(back, x), z.flatten(1).abs().amax(1).clamp_min(1)

    def distance(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).flatten(1).abs().nan_to_num(torch.inf, posinf=torch.inf).amax(1)

    try:
        again = layer.encode(back, context)
        residual, jump = distance(again, z), torch.zeros(len(x), dtype=x.dtype)
        for end in (torch.inf, -torch.inf):
            beside = back.nextafter(torch.full_like(back, end))
            jump = torch.maximum(jump, distance(layer.encode(beside, context), again))
        moved = layer.decode(z * (1 + 4 * torch.finfo(z.dtype).eps), context)
    except SnflowError:
        return torch.ones(len(x), dtype=torch.bool)
    by_z = ((moved - back).abs() / x.abs().clamp_min(1)).flatten(1).nan_to_num(torch.inf, posinf=torch.inf).amax(1)
    return (residual <= 1e4 * torch.finfo(x.dtype).eps * size) | (residual <= 100 * jump) | (by_z >= 0.01 * error)


def _rows(x: Tensor) -> str:
    return " ".join(str([f"{float(v):.3g}" for v in row.flatten()[:4]]) for row in x[:2])


EDGES: dict[str, tuple[Callable[[], Bijection], list[float], tuple[float, float]]] = {
    "Logit": (lambda: snflow.Logit(), [0.0, 1.0], (0.0, 1.0)),
    "Logit, wide margin": (lambda: snflow.Logit(0.05), [0.0, 1.0], (0.0, 1.0)),
    **{
        f"{name} spline": (build, [-bound, bound], (-torch.inf, torch.inf))
        for name, build, bound in (
            ("rational-quadratic", lambda: snflow.rational_quadratic_spline((2,), tail_bound=3.0), 3.0),
            ("linear", lambda: snflow.Elementwise(snflow.LinearSplineTransformer(6), (2,)), 5.0),
            ("quadratic", lambda: snflow.Elementwise(snflow.QuadraticSplineTransformer(6), (2,)), 5.0),
            ("cubic", lambda: snflow.Elementwise(snflow.CubicSplineTransformer(6), (2,)), 5.0),
        )
    },
    "circular spline": (
        lambda: snflow.Elementwise(snflow.CircularSplineTransformer(6), (2,)),
        [-torch.pi, torch.pi],
        (-torch.pi, torch.pi),
    ),
    "CDF": (
        lambda: snflow.CDF(torch.distributions.Normal, loc=0.0, scale=1.0),
        [0.0, 8.0, 40.0],
        (-torch.inf, torch.inf),
    ),
    "LeakyReLU": (lambda: snflow.LeakyReLU(), [0.0], (-torch.inf, torch.inf)),
    "SmoothLeakyReLU": (lambda: snflow.SmoothLeakyReLU(), [0.0, 88.0, 709.0], (-torch.inf, torch.inf)),
    "Radial": (lambda: snflow.Radial(2), [0.0], (-torch.inf, torch.inf)),
    "GDN": (lambda: snflow.GDN(2, vectors=True), [0.0], (-torch.inf, torch.inf)),
}


@check(
    "1,000 points at each edge of a support or of a spline's box, and one ulp to each side: values, log-"
    "determinants and gradients of the mixed batch are finite inside; round trips hold",
    nightly=40 * len(EDGES),
    chunk=100,
    short=len(EDGES),
)
def edges(seed: int, folder: Path) -> float:
    """One layer and dtype by turns, its parameters drawn anew in every round."""
    name = list(EDGES)[seed % len(EDGES)]
    build, ends, (low, high) = EDGES[name]
    dtype = random.choice([torch.float32, torch.float64])
    layer = build().to(dtype)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    x = torch.tensor(ends, dtype=dtype)
    x = torch.cat([x, x.nextafter(x + 1), x.nextafter(x - 1)])
    x = x[(x >= low) & (x <= high)]
    x = x[torch.randint(len(x), (1000, 2))]
    x[::2, 1] = 0.3  # an ordinary element beside one on the edge
    x.requires_grad_()
    z, log_det = layer(x)
    for what, value in (("z", z), ("log_det", log_det)):
        require(bool(value.isfinite().all()), f"{name} {dtype}: {what} is not finite")
    (z.sum() + log_det.sum()).backward()
    for what, grad in (("x", x.grad), *((n, p.grad) for n, p in layer.named_parameters())):
        require(grad is None or bool(grad.isfinite().all()), f"{name} {dtype}: the gradient by {what} is not finite")
    if name == "CDF":
        return 0.0  # constant in the tails
    with torch.no_grad():
        back, error = layer.decode(z), 0.0
        difference = (back - x).abs()
        if name == "circular spline":
            difference = torch.minimum(difference, 2 * torch.pi - difference)
        error = float((difference / x.abs().clamp_min(1)).max())
        margin = 1e-6 if name == "Logit" else 0.05 if "margin" in name else 0.0
        bound = (1e-3 if dtype == torch.float32 else 1e-9) + margin
        require(error <= bound, f"{name} {dtype}: a round trip at the edge is off by {error:.1e}")
    return error
