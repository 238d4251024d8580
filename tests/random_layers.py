"""Layers of random sizes and options, on data of random scale, each made from a seed alone."""

import random

import torch

import snflow as b
from snflow import Newton, Penalty, Secant, SelfNormalizingConv2d, SelfNormalizingDense, nets
from snflow.bijections.coupling import alternating, halves
from snflow.testing.cases import Case, perturbed


def transformer(draw):
    return draw.choice(
        [
            b.AffineTransformer(draw.choice([0.5, 2.0, 5.0])),
            b.AdditiveTransformer(),
            b.GatedTransformer(draw.uniform(-1, 2)),
            b.RationalQuadraticTransformer(draw.randint(1, 12), tail_bound=draw.choice([1.0, 3.0, 10.0])),
        ]
    )


def learned(draw):
    penalty = Penalty(weight=draw.choice([0.0, 1.0, 100.0]), symmetric=draw.random() < 0.3)
    return {"tracking": draw.choice([penalty, Newton(), Secant()]), "bias": draw.random() < 0.7}


def dense(draw):
    size = draw.randint(1, 9)
    return lambda: SelfNormalizingDense(size, **learned(draw)), (size,)


def exact_dense(draw):
    size, rule = draw.randint(1, 9), draw.choice(["exact", "relative"])
    return lambda: b.Dense(size, bias=draw.random() < 0.5, log_det_rule=rule), (size,)


def conv(draw):
    channels, kernel = draw.randint(1, 3), draw.choice([1, 3, 5])
    options = {**learned(draw)}
    shape = (channels, draw.randint(1, 5), draw.randint(1, 5))
    return lambda: SelfNormalizingConv2d(channels, kernel, **options), shape


def exact_conv(draw):
    channels, kernel = draw.randint(1, 3), draw.choice([1, 3, 5])
    return lambda: b.Conv2d(channels, kernel), (channels, draw.randint(1, 5), draw.randint(1, 5))


def coupling(draw):
    size, width = draw.randint(2, 7), draw.randint(1, 12)
    mask = draw.choice([alternating, halves])(size, draw.randint(0, 1))
    kept = int(mask.sum())
    what, depth, residual = transformer(draw), draw.randint(1, 3), draw.random() < 0.5
    count = what.parameters_per_element * (size - kept)

    def build():
        net = nets.MLP(kept, count, width=width, depth=depth, residual=residual, activation="tanh")
        return b.Coupling(mask, what, net)

    return build, (size,)


def autoregressive(draw):
    size, what = draw.randint(1, 7), transformer(draw)
    options = {
        "width": draw.randint(1, 16),
        "depth": draw.randint(1, 3),
        "context_shape": draw.choice([None, None, 2]),
        "residual": draw.random() < 0.5,
        "activation": draw.choice(["silu", "tanh"]),
        "solver": draw.choice(["auto", "steps", "jacobi"]),
    }
    return lambda: b.Autoregressive(size, what, **options), (size,)


def elementwise(draw):
    shape = tuple(draw.randint(1, 4) for _ in range(draw.randint(1, 3)))
    what = transformer(draw)
    return lambda: b.Elementwise(what, shape), shape


def spline(draw):
    shape = tuple(draw.randint(1, 4) for _ in range(draw.randint(1, 3)))
    bins, bound = draw.randint(1, 20), draw.choice([0.5, 3.0, 10.0])
    return lambda: b.rational_quadratic_spline(shape, bins=bins, tail_bound=bound), shape


def factored(draw):
    size = draw.randint(1, 8)
    kind = draw.choice([b.HouseholderLinear, b.LULinear, b.QRLinear, b.SVDLinear, b.TriangularLinear])
    return lambda: kind(size), (size,)


def residual(draw):
    size = draw.randint(1, 6)
    return draw.choice([lambda: b.Planar(size), lambda: b.Radial(size)]), (size,)


def reshaping(draw):
    channels, factor = draw.randint(1, 4), draw.randint(1, 3)
    return lambda: b.Squeeze(factor), (channels, factor * draw.randint(1, 3), factor * draw.randint(1, 3))


KINDS = (
    dense,
    exact_dense,
    conv,
    exact_conv,
    coupling,
    autoregressive,
    elementwise,
    spline,
    factored,
    residual,
    reshaping,
)


def case_of(seed):
    """A layer, its parameters moved by up to half, and data between tiny and far outside."""
    draw = random.Random(seed)
    kind = KINDS[seed % len(KINDS)]
    build, shape = kind(draw)
    scale = draw.choice([1e-3, 1.0, 8.0])

    def sample(*size, dtype):
        return scale * torch.randn(*size, dtype=dtype)

    return kind.__name__, Case(perturbed(build, draw.choice([0.05, 0.3])), shape, sample, 1e-7, 1e-6)
