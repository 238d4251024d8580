"""The catalogue: every layer of the library as a test case."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor, nn

import snflow.bijections
import snflow.selfnorm
from snflow.bijections.autoregressive import Autoregressive, BlockAutoregressive
from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.continuous import ContinuousFlow
from snflow.bijections.convolution.conv2d import Conv2d, PLUConv2d, Woodbury
from snflow.bijections.convolution.emerging import AutoregressiveConv2d, EmergingConv2d
from snflow.bijections.convolution.exponential import ConvExponential
from snflow.bijections.convolution.masked_residual import MaskedResidualConv2d
from snflow.bijections.convolution.periodic import PeriodicConv2d
from snflow.bijections.coupling import Coupling, affine_coupling, alternating, checkerboard, halves
from snflow.bijections.elementwise import (
    CDF,
    Affine,
    Elementwise,
    LeakyReLU,
    Logit,
    Scaling,
    SmoothLeakyReLU,
    rational_quadratic_spline,
)
from snflow.bijections.factored_linear import (
    HouseholderLinear,
    LULinear,
    OrthogonalLinear,
    QRLinear,
    SVDLinear,
    TriangularLinear,
)
from snflow.bijections.gaussianization import GDN, Gaussianization, RotationName
from snflow.bijections.inverse import Inverse
from snflow.bijections.linear import Dense, Permutation
from snflow.bijections.normalization import ActNorm, BatchNorm
from snflow.bijections.reshaping import Flatten, Split, Squeeze
from snflow.bijections.residual.invertible import InvertibleResidual
from snflow.bijections.residual.planar import Planar, Radial
from snflow.bijections.residual.sylvester import GeneralizedSylvester, Sylvester
from snflow.bijections.reversible import Reversible
from snflow.bijections.transformers.affine import AdditiveTransformer, AffineTransformer, GatedTransformer
from snflow.bijections.transformers.monotone import (
    IntegralTransformer,
    LogisticMixtureTransformer,
    SigmoidalTransformer,
    SumOfSquaresTransformer,
)
from snflow.bijections.transformers.spline import (
    CircularSplineTransformer,
    CubicSplineTransformer,
    LinearSplineTransformer,
    QuadraticSplineTransformer,
    RationalQuadraticTransformer,
)
from snflow.nets.convnet import ConvNet
from snflow.nets.lipschitz import LipschitzDenseNet, LipschitzNet
from snflow.nets.mlp import MLP, ResidualMLP
from snflow.nets.velocity import VelocityNet
from snflow.selfnorm.layers import SelfNormalizingConv2d, SelfNormalizingDense, SelfNormalizingStridedConv2d
from snflow.selfnorm.newton import Newton
from snflow.selfnorm.pair import SelfNormalizing
from snflow.selfnorm.penalty import Penalty
from snflow.selfnorm.secant import Secant

Sampler = Callable[..., Tensor]

_SEED = 0


@dataclass(frozen=True)
class Case:
    """A layer under test.

    Attributes:
        build: makes the layer, with random parameters away from any special point.
        event_shape: the shape of one data event.
        sample: draws data events in the layer's domain from a batch shape, ``torch.randn`` unless told otherwise.
        round_trip: largest error of a round trip in float64, relative to max(1, |x|).
        log_det: largest error of a log-determinant against autodiff's Jacobian in float64, in nats.
        rows: largest dependence of a row on the rows beside it; not zero only where a solver's steps are shared.
        single: largest difference between float32 and float64, relative to max(1, |value|).
        transforms: whether ``torch.func`` can go through the layer; where not, it refuses with a ConfigError.
        smooth: whether the map is differentiable everywhere that ``sample`` reaches with probability one.
    """

    build: Callable[[], Bijection]
    event_shape: Shape
    sample: Sampler = torch.randn
    round_trip: float = 1e-9
    log_det: float = 1e-8
    rows: float = 0.0
    single: float = 1e-4
    smooth: bool = True
    transforms: bool = True

    def layer(self) -> Bijection:
        """Make the layer in float64 and ``eval()``."""
        return self.build().double().eval()

    def data(self, batch: int = 7) -> Tensor:
        """Draw a float64 batch ``(batch, *event_shape)`` in the layer's domain."""
        return self.sample(batch, *self.event_shape, dtype=torch.float64)

    def context(self, batch: int = 7) -> Tensor | None:
        """Draw a context for the layer, or ``None`` where it takes none."""
        shape = self.build().context_shape
        return None if shape is None else torch.randn(batch, *shape, dtype=torch.float64)


def perturbed(build: Callable[[], Bijection], scale: float = 0.1) -> Callable[[], Bijection]:
    """Move every parameter away from its first value, so that no check passes by a special point."""

    def make() -> Bijection:
        with torch.random.fork_rng():
            torch.manual_seed(_SEED)
            layer = build()
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter.add_(scale * torch.randn_like(parameter))
        return layer

    return make


_AUTOREGRESSIVE = {
    "Autoregressive (affine)": Case(perturbed(lambda: Autoregressive(4, AffineTransformer(), width=12)), (4,)),
    "Autoregressive (affine, context)": Case(
        perturbed(lambda: Autoregressive(3, AffineTransformer(), width=8, context_shape=2)), (3,)
    ),
    "Autoregressive (affine, Jacobi)": Case(
        perturbed(lambda: Autoregressive(4, AffineTransformer(), width=12, solver="jacobi")), (4,)
    ),
    "Autoregressive (gated, residual, context)": Case(
        perturbed(lambda: Autoregressive(3, GatedTransformer(), width=8, depth=3, context_shape=2, residual=True)), (3,)
    ),
    "Autoregressive (spline)": Case(
        perturbed(lambda: Autoregressive(3, RationalQuadraticTransformer(4), width=12, residual=True), 0.3), (3,)
    ),
    "Autoregressive (one feature)": Case(perturbed(lambda: Autoregressive(1, AffineTransformer(), width=4)), (1,)),
}


def _fitted(rotation: RotationName) -> Bijection:
    layer = Gaussianization(3, bins=6, rotation=rotation)
    return layer.fit(torch.randn(400, 3) @ torch.randn(3, 3) + torch.rand(400, 3).exp())


def _unit(*size: int, dtype: torch.dtype) -> Tensor:
    return torch.rand(*size, dtype=dtype)


def _wide(*size: int, dtype: torch.dtype) -> Tensor:
    """Reaches both tails of a spline with bound 2."""
    return 3 * torch.randn(*size, dtype=dtype)


def _mixed() -> Bijection:
    layers: list[Bijection] = [
        SelfNormalizingConv2d(1),
        SmoothLeakyReLU(),
        Squeeze(),
        Conv2d(4, 1),
        Flatten((4, 2, 2)),
        Dense(16),
    ]
    return Chain(layers)


_BASIC: dict[str, Case] = {
    "Reversible": Case(perturbed(lambda: Reversible([Dense(3), SmoothLeakyReLU(), Dense(3)])), (3,)),
    "Reversible (context)": Case(
        perturbed(lambda: Reversible([Planar(2, context_shape=2), SmoothLeakyReLU(), Planar(2, context_shape=2)]), 0.3),
        (2,),
    ),
    "GDN": Case(perturbed(lambda: GDN(2)), (2, 2, 1)),
    "GDN (vectors)": Case(perturbed(lambda: GDN(3, vectors=True, alpha=1.5, epsilon=0.5)), (3,)),
    "Gaussianization": Case(perturbed(lambda: _fitted("random")), (3,)),
    "Gaussianization (PCA)": Case(perturbed(lambda: _fitted("pca")), (3,)),
    "Affine": Case(lambda: Affine(torch.randn(3), torch.tensor([0.5, -2.0, 3.0])), (3,)),
    "Chain": Case(perturbed(_mixed, 0.05), (1, 4, 4)),
    "Chain (empty)": Case(lambda: Chain([]), (3,)),
    "Conv2d": Case(perturbed(lambda: Conv2d(2)), (2, 4, 5)),
    "Conv2d (1×1, no bias)": Case(perturbed(lambda: Conv2d(3, 1, bias=False)), (3, 3, 2)),
    "Conv2d (by rows)": Case(perturbed(lambda: Conv2d(2, log_det_rule="exact_by_rows")), (2, 4, 5)),
    "Conv2d (5×5 on 2×2)": Case(perturbed(lambda: Conv2d(2, 5)), (2, 2, 2)),
    "Dense": Case(perturbed(lambda: Dense(5)), (5,)),
    "Dense (relative, orthogonal)": Case(
        perturbed(lambda: Dense(4, log_det_rule="relative", initialization="orthogonal")), (4,)
    ),
    "Flatten": Case(lambda: Flatten((2, 3)), (2, 3)),
    "Inverse": Case(lambda: Inverse(SmoothLeakyReLU()), (4,)),
    "LeakyReLU": Case(lambda: LeakyReLU(0.3), (4,)),
    "Logit": Case(lambda: Logit(1e-6), (3,), sample=_unit, single=1e-3),
    "Logit (wide margin)": Case(lambda: Logit(0.05), (3,), sample=_unit),
    "rational_quadratic_spline": Case(
        perturbed(lambda: rational_quadratic_spline((3,), tail_bound=2.0), 1.0), (3,), _wide
    ),
    "rational_quadratic_spline (image)": Case(perturbed(lambda: rational_quadratic_spline((2, 3, 2)), 0.5), (2, 3, 2)),
    "SmoothLeakyReLU": Case(lambda: SmoothLeakyReLU(0.3), (4,), _wide),
    "Squeeze": Case(lambda: Squeeze(2), (2, 4, 6)),
    "Squeeze (by 3)": Case(lambda: Squeeze(3), (1, 6, 3)),
}
"""Named layers, several a class where an option changes the path."""


_CONVOLUTIONS: dict[str, Case] = {
    "AutoregressiveConv2d": Case(perturbed(lambda: AutoregressiveConv2d(3)), (3, 4, 5)),
    "AutoregressiveConv2d (backward, 5×5 on 2×3)": Case(
        perturbed(lambda: AutoregressiveConv2d(2, 5, order="backward", bias=False)), (2, 2, 3)
    ),
    "AutoregressiveConv2d (1×1)": Case(perturbed(lambda: AutoregressiveConv2d(3, 1)), (3, 2, 2)),
    "MaskedResidualConv2d": Case(perturbed(lambda: MaskedResidualConv2d(2, groups=2), 0.2), (2, 2, 3)),
    "MaskedResidualConv2d (reverse, context)": Case(
        perturbed(lambda: MaskedResidualConv2d(1, groups=3, reverse=True, context_shape=2), 0.2), (1, 3, 2)
    ),
    "ConvExponential": Case(perturbed(lambda: ConvExponential(2), 0.05), (2, 4, 5)),
    "ConvExponential (5×5 on 2×3)": Case(perturbed(lambda: ConvExponential(2, 5), 0.03), (2, 2, 3)),
    "EmergingConv2d": Case(perturbed(lambda: EmergingConv2d(2)), (2, 4, 4)),
    "PLUConv2d": Case(perturbed(lambda: PLUConv2d(3)), (3, 2, 4)),
    "PLUConv2d (one channel)": Case(perturbed(lambda: PLUConv2d(1)), (1, 1, 1)),
    "PeriodicConv2d": Case(perturbed(lambda: PeriodicConv2d(2), 0.05), (2, 4, 6)),
    "PeriodicConv2d (odd sides, no bias)": Case(perturbed(lambda: PeriodicConv2d(2, 3, bias=False), 0.05), (2, 3, 5)),
    "PeriodicConv2d (larger than the image)": Case(perturbed(lambda: PeriodicConv2d(1, 5), 0.05), (1, 2, 1)),
    "Woodbury": Case(perturbed(lambda: Woodbury((3, 4, 2), 2, 3)), (3, 4, 2)),
    "Woodbury (full rank)": Case(perturbed(lambda: Woodbury((2, 2, 2)), 0.05), (2, 2, 2)),
}
"""Named layers, several a class where an option changes the path."""


def _levels() -> Bijection:
    """Three levels of scale on a 1×8×8 image: each split holds the next."""
    third = Split((4, 2, 2), Conv2d(2, 1))
    second = Chain([Squeeze(), Conv2d(8, 1), Split((8, 2, 2), third)])
    return Chain([Squeeze(), affine_coupling(4, width=3), Split((4, 4, 4), second)])


_GLOW: dict[str, Case] = {
    "ActNorm": Case(perturbed(lambda: ActNorm(3)), (3, 4, 2)),
    "ActNorm (vectors)": Case(perturbed(lambda: ActNorm(4, vectors=True)), (4,)),
    "affine_coupling": Case(perturbed(lambda: affine_coupling(4, width=5), 0.3), (4, 3, 4)),
    "affine_coupling (odd, another network)": Case(
        perturbed(lambda: affine_coupling(3, conditioner=torch.nn.Conv2d(1, 4, 3, padding=1)), 0.3), (3, 1, 2)
    ),
    "Split": Case(perturbed(lambda: Split((4, 2, 3), Conv2d(2, 1)), 0.3), (4, 2, 3)),
    "Split (odd)": Case(perturbed(lambda: Split((3, 1, 2), LeakyReLU()), 0.3), (3, 1, 2)),
    "Chain (three levels of Split)": Case(perturbed(_levels), (1, 8, 8)),
}
"""Named layers, several a class where an option changes the path."""


_LINEAR_FACTORED = {
    "HouseholderLinear": Case(perturbed(lambda: HouseholderLinear(4)), (4,)),
    "HouseholderLinear (2 reflections, no bias)": Case(
        perturbed(lambda: HouseholderLinear(4, reflections=2, bias=False)), (4,)
    ),
    "OrthogonalLinear": Case(perturbed(lambda: OrthogonalLinear(4)), (4,)),
    "LULinear": Case(perturbed(lambda: LULinear(4)), (4,)),
    "LULinear (identity first, no bias)": Case(perturbed(lambda: LULinear(3, bias=False, identity=True)), (3,)),
    "QRLinear": Case(perturbed(lambda: QRLinear(4, reflections=3)), (4,)),
    "SVDLinear": Case(perturbed(lambda: SVDLinear(4)), (4,)),
    "TriangularLinear": Case(perturbed(lambda: TriangularLinear(4)), (4,)),
    "TriangularLinear (upper)": Case(perturbed(lambda: TriangularLinear(4, upper=True, bias=False)), (4,)),
    "Permutation": Case(lambda: Permutation([2, 0, 3, 1]), (4,)),
    "Permutation (channels)": Case(lambda: Permutation([2, 0, 1], image=True), (3, 2, 2)),
}


_MONOTONE = {
    "CDF (normal)": Case(lambda: CDF(torch.distributions.Normal, loc=torch.tensor([0.5, -1.0]), scale=2.0), (2,)),
    "CDF (Laplace)": Case(lambda: CDF(torch.distributions.Laplace, loc=0.0, scale=1.0), (2, 2)),
    "BlockAutoregressive": Case(perturbed(lambda: BlockAutoregressive(3, block=4, depth=2), 0.3), (3,)),
    "BlockAutoregressive (context)": Case(perturbed(lambda: BlockAutoregressive(2, block=3, context_shape=2)), (2,)),
    "Elementwise (linear spline)": Case(perturbed(lambda: Elementwise(LinearSplineTransformer(6), (3,)), 0.5), (3,)),
    "Elementwise (quadratic spline)": Case(
        perturbed(lambda: Elementwise(QuadraticSplineTransformer(6), (2, 2)), 0.5), (2, 2)
    ),
    "Elementwise (cubic spline)": Case(perturbed(lambda: Elementwise(CubicSplineTransformer(6), (3,)), 0.5), (3,)),
    "Elementwise (logistic mixture)": Case(
        perturbed(lambda: Elementwise(LogisticMixtureTransformer(4), (2, 2)), 0.5), (2, 2)
    ),
    "Elementwise (sigmoidal)": Case(perturbed(lambda: Elementwise(SigmoidalTransformer(4), (3,)), 0.5), (3,)),
    "Elementwise (integral)": Case(perturbed(lambda: Elementwise(IntegralTransformer(3, width=6), (3,)), 0.3), (3,)),
    "Elementwise (sum of squares)": Case(perturbed(lambda: Elementwise(SumOfSquaresTransformer(), (3,)), 0.5), (3,)),
    "Autoregressive (sigmoidal)": Case(
        perturbed(lambda: Autoregressive(3, SigmoidalTransformer(3, layers=2), width=8, context_shape=2)), (3,)
    ),
    "Autoregressive (integral)": Case(
        perturbed(lambda: Autoregressive(3, IntegralTransformer(2, width=6), width=8)), (3,)
    ),
    "Autoregressive (sum of squares)": Case(
        perturbed(lambda: Autoregressive(3, SumOfSquaresTransformer(2, 2), width=8)), (3,)
    ),
    "Coupling (logistic mixture)": Case(
        perturbed(lambda: Coupling(halves(3), LogisticMixtureTransformer(2), MLP(1, 16, width=6))), (3,)
    ),
}


class _Bend(nn.Module):
    """x + 0.3 tanh x: a slope between 1 and 1.3."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * torch.tanh(x)


def _images() -> Bijection:
    """Convolutions that stay near the identity: Newton's method finds the way back."""
    nets = []
    for _ in range(2):
        conv = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.dirac_(conv.weight)
        nets.append(nn.Sequential(conv, _Bend()))
    return SelfNormalizing(nets[0], nets[1], (1, 3, 4))


_NETWORKS: dict[str, Case] = {
    "SelfNormalizing": Case(
        perturbed(
            lambda: SelfNormalizing(ResidualMLP(3, width=8, blocks=1), ResidualMLP(3, width=8, blocks=1), (3,)), 0.05
        ),
        (3,),
    ),
    "SelfNormalizing (images, another activation)": Case(perturbed(_images, 0.02), (1, 3, 4)),
    "SelfNormalizing (linear)": Case(
        perturbed(lambda: SelfNormalizing(nn.Linear(2, 2), nn.Linear(2, 2), (2,)), 0.05), (2,)
    ),
}
"""Named layers, several a class where an option changes the path."""


_RESIDUAL = {
    "GeneralizedSylvester": Case(
        perturbed(lambda: GeneralizedSylvester(3, units=2, width=6, depth=1, activation="tanh"), 0.3), (3,)
    ),
    "GeneralizedSylvester (context)": Case(
        perturbed(lambda: GeneralizedSylvester(2, units=2, width=6, depth=1, context_shape=2, activation="tanh"), 0.3),
        (2,),
    ),
    "InvertibleResidual": Case(perturbed(lambda: InvertibleResidual(LipschitzNet((3,), width=4), (3,)), 0.3), (3,)),
    "InvertibleResidual (context)": Case(
        perturbed(
            lambda: InvertibleResidual(LipschitzNet((2,), width=4, context_shape=2), (2,), context_shape=(2,)), 0.3
        ),
        (2,),
    ),
    "InvertibleResidual (dense)": Case(
        perturbed(lambda: InvertibleResidual(LipschitzDenseNet((2,), growth=2, depth=2), (2,))), (2,)
    ),
    "InvertibleResidual (dense images)": Case(
        perturbed(lambda: InvertibleResidual(LipschitzDenseNet((1, 3, 2), growth=1, depth=1), (1, 3, 2))), (1, 3, 2)
    ),
    "InvertibleResidual (images)": Case(
        perturbed(lambda: InvertibleResidual(LipschitzNet((2, 2, 2), width=2, depth=1), (2, 2, 2))), (2, 2, 2)
    ),
    "Planar": Case(perturbed(lambda: Planar(3), 0.5), (3,)),
    "Planar (context)": Case(perturbed(lambda: Planar(3, context_shape=2), 0.5), (3,)),
    "Planar (one feature)": Case(perturbed(lambda: Planar(1), 0.5), (1,)),
    "Radial": Case(perturbed(lambda: Radial(3), 0.5), (3,)),
    "Radial (context)": Case(perturbed(lambda: Radial(3, context_shape=2), 0.5), (3,)),
    "Sylvester (Householder)": Case(perturbed(lambda: Sylvester(4, units=3), 0.3), (4,)),
    "Sylvester (orthogonal)": Case(perturbed(lambda: Sylvester(4, units=2, basis="orthogonal"), 0.3), (4,)),
    "Sylvester (triangular, context)": Case(
        perturbed(lambda: Sylvester(3, units=None, basis="triangular", context_shape=2), 0.3), (3,)
    ),
    # steps of its own choice are no differentiable function: tests/test_continuous.py has its gradients
    "ContinuousFlow (adaptive, adjoint)": Case(
        perturbed(lambda: ContinuousFlow(VelocityNet((2,), width=4), (2,), tolerance=1e-9), 0.3),
        (2,),
        round_trip=1e-7,
        log_det=1e-7,
        rows=1e-7,
        smooth=False,
        transforms=False,
    ),
    "ContinuousFlow (context)": Case(
        perturbed(
            lambda: ContinuousFlow(
                VelocityNet((2,), width=4, depth=1, context_shape=2),
                (2,),
                context_shape=(2,),
                solver="rk4",
                adjoint=False,
            ),
            0.3,
        ),
        (2,),
        round_trip=1e-6,
        log_det=1e-6,
        transforms=False,
    ),
    "ContinuousFlow (images)": Case(
        perturbed(
            lambda: ContinuousFlow(VelocityNet((1, 2, 2), width=2, depth=1), (1, 2, 2), solver="rk4", adjoint=False),
            0.3,
        ),
        (1, 2, 2),
        round_trip=1e-5,
        log_det=1e-5,
        transforms=False,
    ),
}


_SELFNORM: dict[str, Case] = {
    "SelfNormalizingConv2d": Case(perturbed(lambda: SelfNormalizingConv2d(2)), (2, 4, 5)),
    "SelfNormalizingConv2d (1×1)": Case(perturbed(lambda: SelfNormalizingConv2d(3, 1)), (3, 2, 3)),
    "SelfNormalizingConv2d (5×5, no bias)": Case(
        perturbed(lambda: SelfNormalizingConv2d(1, 5, bias=False), 0.03), (1, 4, 4)
    ),
    "SelfNormalizingConv2d (3×3 with an inverse of 7×7)": Case(
        perturbed(lambda: SelfNormalizingConv2d(2, 3, inverse_kernel_size=7)), (2, 4, 5)
    ),
    "SelfNormalizingConv2d (dilated)": Case(perturbed(lambda: SelfNormalizingConv2d(2, 3, dilation=2)), (2, 5, 6)),
    "SelfNormalizingConv2d (groups)": Case(perturbed(lambda: SelfNormalizingConv2d(4, 3, groups=2)), (4, 3, 4)),
    "SelfNormalizingConv2d (1×1, groups, secant)": Case(
        perturbed(lambda: SelfNormalizingConv2d(4, 1, groups=2, tracking=Secant())), (4, 3, 2)
    ),
    "SelfNormalizingConv2d (newton)": Case(perturbed(lambda: SelfNormalizingConv2d(2, tracking=Newton())), (2, 4, 5)),
    "SelfNormalizingDense": Case(perturbed(lambda: SelfNormalizingDense(5)), (5,)),
    "SelfNormalizingDense (penalty on two rows)": Case(
        perturbed(lambda: SelfNormalizingDense(5, tracking=Penalty(samples=2))), (5,)
    ),
    "SelfNormalizingDense (newton, Neumann)": Case(
        perturbed(lambda: SelfNormalizingDense(5, tracking=Newton(neumann_terms=2))), (5,)
    ),
    "SelfNormalizingStridedConv2d": Case(perturbed(lambda: SelfNormalizingStridedConv2d(2, 2)), (2, 4, 6)),
    "SelfNormalizingDense (no bias, orthogonal)": Case(
        perturbed(lambda: SelfNormalizingDense(4, bias=False, initialization="orthogonal")), (4,)
    ),
}
"""Named layers, several a class where an option changes the path."""


def angles(*size: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    """Uniform angles in (−π, π)."""
    return torch.pi * (2 * torch.rand(*size, dtype=dtype) - 1)


_TRANSFORMED = {
    "Elementwise (affine)": Case(perturbed(lambda: Elementwise(AffineTransformer(), (2, 3))), (2, 3)),
    "Elementwise (additive)": Case(perturbed(lambda: Elementwise(AdditiveTransformer(), (3,))), (3,)),
    "Elementwise (gated)": Case(perturbed(lambda: Elementwise(GatedTransformer(), (3,))), (3,)),
    "Elementwise (spline)": Case(perturbed(lambda: Elementwise(RationalQuadraticTransformer(5), (2, 3)), 1.0), (2, 3)),
    "Elementwise (circular)": Case(
        perturbed(lambda: Elementwise(CircularSplineTransformer(5), (3,)), 0.2), (3,), sample=angles, smooth=False
    ),
    "Scaling": Case(perturbed(lambda: Scaling((2, 2))), (2, 2)),
    "BatchNorm": Case(perturbed(lambda: BatchNorm(3)), (3,)),
    "BatchNorm (channels)": Case(perturbed(lambda: BatchNorm(3, image=True)), (3, 2, 2)),
    "Coupling (features)": Case(
        perturbed(lambda: Coupling(alternating(5), AffineTransformer(), MLP(3, 4, width=8))), (5,)
    ),
    "Coupling (features, context)": Case(
        perturbed(
            lambda: Coupling(
                halves(4, 1),
                AdditiveTransformer(),
                MLP(2, 2, width=8, depth=3, context_shape=2, residual=True),
                context_shape=2,
            )
        ),
        (4,),
    ),
    "Coupling (spline)": Case(
        perturbed(lambda: Coupling(halves(3), RationalQuadraticTransformer(4), MLP(1, 22, width=8)), 0.3), (3,)
    ),
    "Coupling (channels)": Case(
        perturbed(lambda: Coupling(halves(3), AffineTransformer(), ConvNet(1, 4, width=4), image=True)),
        (3, 4, 4),
        smooth=False,
    ),
    "Coupling (checkerboard)": Case(
        perturbed(lambda: Coupling(checkerboard(4, 4), AffineTransformer(), ConvNet(2, 4, width=4))),
        (2, 4, 4),
        smooth=False,
    ),
}


_FAMILIES = (
    _AUTOREGRESSIVE,
    _BASIC,
    _CONVOLUTIONS,
    _GLOW,
    _LINEAR_FACTORED,
    _MONOTONE,
    _NETWORKS,
    _RESIDUAL,
    _SELFNORM,
    _TRANSFORMED,
)
CATALOGUE: dict[str, Case] = dict(sorted((name, case) for family in _FAMILIES for name, case in family.items()))
"""Layers by name; a layer has several entries where an option changes the computation."""


def bijection_classes() -> set[type[Bijection]]:
    """Find every bijection class, abstract or final, that the library defines, by walking its modules."""
    found: set[type[Bijection]] = set()
    packages: tuple[ModuleType, ...] = (snflow.bijections, snflow.selfnorm)
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if issubclass(member, Bijection) and member.__module__.startswith("snflow."):
                    found.add(member)
    return found
