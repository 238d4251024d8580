"""The catalogue: every layer and every transformer of the library as a test case."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

import snflow.bijections
import snflow.selfnorm
from snflow.bijections.autoregressive import Autoregressive, BlockAutoregressive
from snflow.bijections.base import Bijection, Shape
from snflow.bijections.chain import Chain
from snflow.bijections.context import ContextEmbedding
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
from snflow.bijections.transformers.affine import (
    AdditiveTransformer,
    AffineTransformer,
    GatedTransformer,
    TanhTransformer,
)
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
from snflow.bijections.transformers.transformer import Transformer
from snflow.errors import CheckedConstructor
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
        build: creates the layer, with generic random parameters.
        event_shape: the shape of one data event.
        sample: draws events in the domain of the layer, given the shape of the batch; ``torch.randn`` by default.
        round_trip: largest allowed error of a round trip in float64, relative to max(1, |x|).
        log_det: largest allowed error of a log-determinant, in nats, compared with the Jacobian by autograd in float64.
        rows: largest allowed dependence of a row on the other rows; zero unless the steps of a solver are shared by the
            batch.
        single: largest allowed difference between float32 and float64, relative to max(1, |value|).
        smooth: whether the map is differentiable with probability one at points drawn by ``sample``.
        transforms: whether the layer supports ``torch.func``; otherwise it must raise a ConfigError.
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
        """Create the layer in float64 and ``eval()``."""
        return self.build().double().eval()

    def data(self, batch: int = 7) -> Tensor:
        """Draw a float64 batch ``(batch, *event_shape)`` in the domain of the layer."""
        return self.sample(batch, *self.event_shape, dtype=torch.float64)

    def context(self, batch: int = 7) -> Tensor | None:
        """Draw a context for the layer, or ``None`` if it takes none."""
        shape = self.build().context_shape
        return None if shape is None else torch.randn(batch, *shape, dtype=torch.float64)


def perturbed(build: Callable[[], Bijection], scale: float = 0.1) -> Callable[[], Bijection]:
    """Perturb the initial value of every parameter, so that no check passes only because of a special initial value."""

    def make() -> Bijection:
        with torch.random.fork_rng():
            torch.manual_seed(_SEED)
            layer = build()
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter.add_(scale * torch.randn_like(parameter))
        return layer

    return make


def _case(build: Callable[[], Bijection], *event_shape: int, scale: float = 0.1, **options: Any) -> Case:
    return Case(perturbed(build, scale), event_shape, **options)


def _unit(*size: int, dtype: torch.dtype) -> Tensor:
    """Uniform values in [0, 1)."""
    return torch.rand(*size, dtype=dtype)


def _wide(*size: int, dtype: torch.dtype) -> Tensor:
    """Values that reach both tails of a spline with bound 2."""
    return 3 * torch.randn(*size, dtype=dtype)


def _angles(*size: int, dtype: torch.dtype) -> Tensor:
    """Uniform angles in [−π, π)."""
    return torch.pi * (2 * torch.rand(*size, dtype=dtype) - 1)


def _mixed_chain() -> Bijection:
    layers = [SelfNormalizingConv2d(1), SmoothLeakyReLU(), Squeeze(), Conv2d(4, 1), Flatten((4, 2, 2)), Dense(16)]
    return Chain(layers)


def _three_scales() -> Bijection:
    """A flow with three scales for 1×8×8 images: each split contains the next."""
    third = Split((4, 2, 2), Conv2d(2, 1))
    second = Chain([Squeeze(), Conv2d(8, 1), Split((8, 2, 2), third)])
    return Chain([Squeeze(), affine_coupling(4, width=3), Split((4, 4, 4), second)])


def _gaussianization(rotation: RotationName) -> Bijection:
    layer = Gaussianization(3, bins=6, rotation=rotation)
    return layer.fit(torch.randn(400, 3) @ torch.randn(3, 3) + torch.rand(400, 3).exp())


def _pair(features: int) -> Bijection:
    forward, inverse = (ResidualMLP(features, width=8, blocks=1) for _ in range(2))
    return SelfNormalizing(forward, inverse, (features,))


class _Bend(nn.Module, metaclass=CheckedConstructor):
    """x + 0.3 tanh x, with slopes between 1 and 1.3."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * torch.tanh(x)


def _pair_of_convolutions() -> Bijection:
    """Two convolutions close to the identity, so that Newton's method converges."""
    nets = []
    for _ in range(2):
        conv = nn.Conv2d(1, 1, 3, padding=1)
        nn.init.dirac_(conv.weight)
        nets.append(nn.Sequential(conv, _Bend()))
    return SelfNormalizing(nets[0], nets[1], (1, 3, 4))


def _sylvester(features: int, context_shape: int | None = None) -> Bijection:
    options: dict[str, Any] = {"width": 6, "depth": 1, "activation": "tanh", "context_shape": context_shape}
    return GeneralizedSylvester(features, units=2, **options)


def _residual_with_context() -> Bijection:
    return InvertibleResidual(LipschitzNet((2,), width=4, context_shape=2), (2,), context_shape=2)


def _continuous_with_context() -> Bijection:
    net = VelocityNet((2,), width=4, depth=1, context_shape=2)
    return ContinuousFlow(net, (2,), context_shape=2, solver="rk4", steps=8, adjoint=False)


def _continuous_images() -> Bijection:
    net = VelocityNet((1, 2, 2), width=2, depth=1)
    return ContinuousFlow(net, (1, 2, 2), solver="rk4", steps=12, adjoint=False)


def _coupling_with_context() -> Bijection:
    net = MLP(2, 2, width=8, depth=3, context_shape=2, residual=True)
    return Coupling(halves(4, 1), AdditiveTransformer(), net, context_shape=2)


CATALOGUE: dict[str, Case] = {
    # Wrappers
    "Chain": _case(_mixed_chain, 1, 4, 4, scale=0.05),
    "Chain (empty)": Case(lambda: Chain([]), (3,)),
    "Chain (three scales)": _case(_three_scales, 1, 8, 8),
    "Inverse": Case(lambda: Inverse(SmoothLeakyReLU()), (4,)),
    "Reversible": _case(lambda: Reversible([Dense(3), SmoothLeakyReLU(), Dense(3)]), 3),
    "Reversible (context)": _case(
        lambda: Reversible([Planar(2, context_shape=2), SmoothLeakyReLU(), Planar(2, context_shape=2)]), 2, scale=0.3
    ),
    "ContextEmbedding": _case(lambda: ContextEmbedding(Planar(2, context_shape=2), nn.Linear(3, 2), 3), 2, scale=0.3),
    # Reshaping
    "Flatten": Case(lambda: Flatten((2, 3)), (2, 3)),
    "Permutation": Case(lambda: Permutation([2, 0, 3, 1]), (4,)),
    "Permutation (channels)": Case(lambda: Permutation([2, 0, 1], image=True), (3, 2, 2)),
    "Split": _case(lambda: Split((4, 2, 3), Conv2d(2, 1)), 4, 2, 3, scale=0.3),
    "Split (odd)": _case(lambda: Split((3, 1, 2), LeakyReLU()), 3, 1, 2, scale=0.3),
    "Squeeze": Case(lambda: Squeeze(2), (2, 4, 6)),
    "Squeeze (by 3)": Case(lambda: Squeeze(3), (1, 6, 3)),
    # Element-wise layers
    "Affine": Case(lambda: Affine(torch.randn(3), torch.tensor([0.5, -2.0, 3.0])), (3,)),
    "Affine (channels)": Case(lambda: Affine(torch.randn(2, 1), 1 + torch.rand(2, 1)), (2, 3)),
    "Affine (numbers)": Case(lambda: Affine(0.5, -2.0), (2, 3)),
    "CDF (Laplace)": Case(lambda: CDF(torch.distributions.Laplace, loc=0.0, scale=1.0), (2, 2)),
    "CDF (normal)": Case(lambda: CDF(torch.distributions.Normal, loc=torch.tensor([0.5, -1.0]), scale=2.0), (2,)),
    "LeakyReLU": Case(lambda: LeakyReLU(0.3), (4,)),
    "LeakyReLU (slope above one)": Case(lambda: LeakyReLU(4.0), (4,)),
    "Logit": Case(lambda: Logit(1e-6), (3,), sample=_unit, single=1e-3),
    "Logit (wide margin)": Case(lambda: Logit(0.05), (3,), sample=_unit),
    "Scaling": _case(lambda: Scaling((2, 2)), 2, 2),
    "SmoothLeakyReLU": Case(lambda: SmoothLeakyReLU(0.3), (4,), _wide),
    "SmoothLeakyReLU (slope of 0.01)": Case(lambda: SmoothLeakyReLU(0.01), (4,), _wide),
    "SmoothLeakyReLU (slope of one)": Case(lambda: SmoothLeakyReLU(1.0), (4,), _wide),
    # Transformers, each as an element-wise layer
    "Elementwise (additive)": _case(lambda: Elementwise(AdditiveTransformer(), (3,)), 3),
    "Elementwise (affine)": _case(lambda: Elementwise(AffineTransformer(), (2, 3)), 2, 3),
    "Elementwise (circular spline)": _case(
        lambda: Elementwise(CircularSplineTransformer(5), (3,)), 3, scale=0.2, sample=_angles, smooth=False
    ),
    "Elementwise (cubic spline)": _case(lambda: Elementwise(CubicSplineTransformer(6), (3,)), 3, scale=0.5),
    "Elementwise (gated)": _case(lambda: Elementwise(GatedTransformer(), (3,)), 3),
    "Elementwise (integral)": _case(lambda: Elementwise(IntegralTransformer(3, width=6), (3,)), 3, scale=0.3),
    "Elementwise (linear spline)": _case(lambda: Elementwise(LinearSplineTransformer(6), (3,)), 3, scale=0.5),
    "Elementwise (logistic mixture)": _case(
        lambda: Elementwise(LogisticMixtureTransformer(4), (2, 2)), 2, 2, scale=0.5
    ),
    "Elementwise (quadratic spline)": _case(
        lambda: Elementwise(QuadraticSplineTransformer(6), (2, 2)), 2, 2, scale=0.5
    ),
    "Elementwise (rational-quadratic spline)": _case(
        lambda: rational_quadratic_spline((3,), tail_bound=2.0), 3, scale=1.0, sample=_wide
    ),
    "Elementwise (rational-quadratic spline of images)": _case(
        lambda: rational_quadratic_spline((2, 3, 2)), 2, 3, 2, scale=0.5
    ),
    "Elementwise (sigmoidal)": _case(lambda: Elementwise(SigmoidalTransformer(4), (3,)), 3, scale=0.5),
    "Elementwise (sum of squares)": _case(lambda: Elementwise(SumOfSquaresTransformer(), (3,)), 3, scale=0.5),
    "Elementwise (tanh)": _case(lambda: Elementwise(TanhTransformer(3), (3,)), 3, scale=0.5),
    # Couplings
    "Coupling (channels)": _case(
        lambda: Coupling(halves(3), AffineTransformer(), ConvNet(1, 4, width=4), image=True), 3, 4, 4, smooth=False
    ),
    "Coupling (checkerboard)": _case(
        lambda: Coupling(checkerboard(4, 4), AffineTransformer(), ConvNet(2, 4, width=4)), 2, 4, 4, smooth=False
    ),
    "Coupling (context)": _case(_coupling_with_context, 4),
    "Coupling (features)": _case(lambda: Coupling(alternating(5), AffineTransformer(), MLP(3, 4, width=8)), 5),
    "Coupling (Glow)": _case(lambda: affine_coupling(4, width=5), 4, 3, 4, scale=0.3),
    "Coupling (Glow, odd, another network)": _case(
        lambda: affine_coupling(3, conditioner=nn.Conv2d(1, 4, 3, padding=1)), 3, 1, 2, scale=0.3
    ),
    "Coupling (logistic mixture)": _case(
        lambda: Coupling(halves(3), LogisticMixtureTransformer(2), MLP(1, 16, width=6)), 3
    ),
    "Coupling (spline)": _case(
        lambda: Coupling(halves(3), RationalQuadraticTransformer(4), MLP(1, 22, width=8)), 3, scale=0.3
    ),
    # Autoregressive layers
    "Autoregressive (affine)": _case(lambda: Autoregressive(4, AffineTransformer(), width=12), 4),
    "Autoregressive (affine, context)": _case(
        lambda: Autoregressive(3, AffineTransformer(), width=8, context_shape=2), 3
    ),
    "Autoregressive (affine, Jacobi)": _case(
        lambda: Autoregressive(4, AffineTransformer(), width=12, solver="jacobi"), 4
    ),
    "Autoregressive (gated, residual, context)": _case(
        lambda: Autoregressive(3, GatedTransformer(), width=8, depth=3, context_shape=2, residual=True), 3
    ),
    "Autoregressive (integral)": _case(lambda: Autoregressive(3, IntegralTransformer(2, width=6), width=8), 3),
    "Autoregressive (one feature)": _case(lambda: Autoregressive(1, AffineTransformer(), width=4), 1),
    "Autoregressive (sigmoidal, context)": _case(
        lambda: Autoregressive(3, SigmoidalTransformer(3, layers=2), width=8, context_shape=2), 3
    ),
    "Autoregressive (spline)": _case(
        lambda: Autoregressive(3, RationalQuadraticTransformer(4), width=12, residual=True), 3, scale=0.3
    ),
    "Autoregressive (sum of squares)": _case(lambda: Autoregressive(3, SumOfSquaresTransformer(2, 2), width=8), 3),
    "BlockAutoregressive": _case(lambda: BlockAutoregressive(3, block=4, depth=2), 3, scale=0.3),
    "BlockAutoregressive (context)": _case(lambda: BlockAutoregressive(2, block=3, context_shape=2), 2),
    # Linear layers
    "Dense": _case(lambda: Dense(5), 5),
    "Dense (relative, orthogonal)": _case(lambda: Dense(4, log_det_rule="relative", initialization="orthogonal"), 4),
    "HouseholderLinear": _case(lambda: HouseholderLinear(4), 4),
    "HouseholderLinear (2 reflections, no bias)": _case(lambda: HouseholderLinear(4, reflections=2, bias=False), 4),
    "LULinear": _case(lambda: LULinear(4), 4),
    "LULinear (identity first, no bias)": _case(lambda: LULinear(3, bias=False, identity=True), 3),
    "OrthogonalLinear": _case(lambda: OrthogonalLinear(4), 4),
    "QRLinear": _case(lambda: QRLinear(4, reflections=3), 4),
    "SVDLinear": _case(lambda: SVDLinear(4), 4),
    "TriangularLinear": _case(lambda: TriangularLinear(4), 4),
    "TriangularLinear (upper, no bias)": _case(lambda: TriangularLinear(4, upper=True, bias=False), 4),
    # Convolutions
    "AutoregressiveConv2d": _case(lambda: AutoregressiveConv2d(3), 3, 4, 5),
    "AutoregressiveConv2d (1×1)": _case(lambda: AutoregressiveConv2d(3, 1), 3, 2, 2),
    "AutoregressiveConv2d (backward, 5×5 on 2×3)": _case(
        lambda: AutoregressiveConv2d(2, 5, order="backward", bias=False), 2, 2, 3
    ),
    "Conv2d": _case(lambda: Conv2d(2), 2, 4, 5),
    "Conv2d (1×1, no bias)": _case(lambda: Conv2d(3, 1, bias=False), 3, 3, 2),
    "Conv2d (5×5 on 2×2)": _case(lambda: Conv2d(2, 5), 2, 2, 2),
    "Conv2d (by rows)": _case(lambda: Conv2d(2, log_det_rule="exact_by_rows"), 2, 4, 5),
    "ConvExponential": _case(lambda: ConvExponential(2), 2, 4, 5, scale=0.05),
    "ConvExponential (5×5 on 2×3)": _case(lambda: ConvExponential(2, 5), 2, 2, 3, scale=0.03),
    "EmergingConv2d": _case(lambda: EmergingConv2d(2), 2, 4, 4),
    "MaskedResidualConv2d": _case(lambda: MaskedResidualConv2d(2, groups=2), 2, 2, 3, scale=0.2),
    "MaskedResidualConv2d (reverse, context)": _case(
        lambda: MaskedResidualConv2d(1, groups=3, reverse=True, context_shape=2), 1, 3, 2, scale=0.2
    ),
    "PeriodicConv2d": _case(lambda: PeriodicConv2d(2), 2, 4, 6, scale=0.05),
    "PeriodicConv2d (larger than the image)": _case(lambda: PeriodicConv2d(1, 5), 1, 2, 1, scale=0.05),
    "PeriodicConv2d (odd sides, no bias)": _case(lambda: PeriodicConv2d(2, 3, bias=False), 2, 3, 5, scale=0.05),
    "PLUConv2d": _case(lambda: PLUConv2d(3), 3, 2, 4),
    "PLUConv2d (one channel)": _case(lambda: PLUConv2d(1), 1, 1, 1),
    "Woodbury": _case(lambda: Woodbury((3, 4, 2), 2, 3), 3, 4, 2),
    "Woodbury (full rank)": _case(lambda: Woodbury((2, 2, 2)), 2, 2, 2, scale=0.05),
    # Normalization and Gaussianization
    "ActNorm": _case(lambda: ActNorm(3), 3, 4, 2),
    "ActNorm (vectors)": _case(lambda: ActNorm(4, vectors=True), 4),
    "BatchNorm": _case(lambda: BatchNorm(3), 3),
    "BatchNorm (channels)": _case(lambda: BatchNorm(3, image=True), 3, 2, 2),
    "Gaussianization": _case(lambda: _gaussianization("random"), 3),
    "Gaussianization (PCA)": _case(lambda: _gaussianization("pca"), 3),
    "GDN": _case(lambda: GDN(2), 2, 2, 1),
    "GDN (vectors)": _case(lambda: GDN(3, vectors=True, alpha=1.5, epsilon=0.5), 3),
    # Residual layers
    "GeneralizedSylvester": _case(lambda: _sylvester(3), 3, scale=0.3),
    "GeneralizedSylvester (context)": _case(lambda: _sylvester(2, context_shape=2), 2, scale=0.3),
    "InvertibleResidual": _case(lambda: InvertibleResidual(LipschitzNet((3,), width=4), (3,)), 3, scale=0.3),
    "InvertibleResidual (context)": _case(_residual_with_context, 2, scale=0.3),
    "InvertibleResidual (dense)": _case(
        lambda: InvertibleResidual(LipschitzDenseNet((2,), growth=2, depth=2), (2,)), 2
    ),
    "InvertibleResidual (dense, images)": _case(
        lambda: InvertibleResidual(LipschitzDenseNet((1, 3, 2), growth=1, depth=1), (1, 3, 2)), 1, 3, 2
    ),
    "InvertibleResidual (images)": _case(
        lambda: InvertibleResidual(LipschitzNet((2, 2, 2), width=2, depth=1), (2, 2, 2)), 2, 2, 2
    ),
    "Planar": _case(lambda: Planar(3), 3, scale=0.5),
    "Planar (context)": _case(lambda: Planar(3, context_shape=2), 3, scale=0.5),
    "Planar (one feature)": _case(lambda: Planar(1), 1, scale=0.5),
    "Radial": _case(lambda: Radial(3), 3, scale=0.5),
    "Radial (context)": _case(lambda: Radial(3, context_shape=2), 3, scale=0.5),
    "Sylvester (Householder)": _case(lambda: Sylvester(4, units=3), 4, scale=0.3),
    "Sylvester (orthogonal)": _case(lambda: Sylvester(4, units=2, basis="orthogonal"), 4, scale=0.3),
    "Sylvester (triangular, context)": _case(lambda: Sylvester(3, basis="triangular", context_shape=2), 3, scale=0.3),
    # Continuous flows. Adaptive steps are not differentiable; tests/bijections/test_continuous.py checks the gradients.
    "ContinuousFlow (adaptive, adjoint)": _case(
        lambda: ContinuousFlow(VelocityNet((2,), width=4), (2,), tolerance=1e-9),
        2,
        scale=0.3,
        round_trip=1e-7,
        log_det=1e-7,
        rows=1e-7,
        smooth=False,
        transforms=False,
    ),
    "ContinuousFlow (context)": _case(
        _continuous_with_context, 2, scale=0.3, round_trip=1e-6, log_det=1e-6, transforms=False
    ),
    "ContinuousFlow (images)": _case(
        _continuous_images, 1, 2, 2, scale=0.3, round_trip=1e-5, log_det=1e-5, transforms=False
    ),
    # Self-normalizing layers
    "SelfNormalizing": _case(lambda: _pair(3), 3, scale=0.05),
    "SelfNormalizing (images, another activation)": _case(_pair_of_convolutions, 1, 3, 4, scale=0.02),
    "SelfNormalizing (linear)": _case(lambda: SelfNormalizing(nn.Linear(2, 2), nn.Linear(2, 2), (2,)), 2, scale=0.05),
    "SelfNormalizingConv2d": _case(lambda: SelfNormalizingConv2d(2), 2, 4, 5),
    "SelfNormalizingConv2d (1×1)": _case(lambda: SelfNormalizingConv2d(3, 1), 3, 2, 3),
    "SelfNormalizingConv2d (1×1, groups, secant)": _case(
        lambda: SelfNormalizingConv2d(4, 1, groups=2, tracking=Secant()), 4, 3, 2
    ),
    "SelfNormalizingConv2d (3×3 with an inverse of 7×7)": _case(
        lambda: SelfNormalizingConv2d(2, 3, inverse_kernel_size=7), 2, 4, 5
    ),
    "SelfNormalizingConv2d (5×5, no bias)": _case(lambda: SelfNormalizingConv2d(1, 5, bias=False), 1, 4, 4, scale=0.03),
    "SelfNormalizingConv2d (dilated)": _case(lambda: SelfNormalizingConv2d(2, 3, dilation=2), 2, 5, 6),
    "SelfNormalizingConv2d (groups)": _case(lambda: SelfNormalizingConv2d(4, 3, groups=2), 4, 3, 4),
    "SelfNormalizingConv2d (newton)": _case(lambda: SelfNormalizingConv2d(2, tracking=Newton()), 2, 4, 5),
    "SelfNormalizingDense": _case(lambda: SelfNormalizingDense(5), 5),
    "SelfNormalizingDense (newton, Neumann)": _case(
        lambda: SelfNormalizingDense(5, tracking=Newton(neumann_terms=2)), 5
    ),
    "SelfNormalizingDense (no bias, orthogonal)": _case(
        lambda: SelfNormalizingDense(4, bias=False, initialization="orthogonal"), 4
    ),
    "SelfNormalizingDense (penalty on two rows)": _case(
        lambda: SelfNormalizingDense(5, tracking=Penalty(samples=2)), 5
    ),
    "SelfNormalizingStridedConv2d": _case(lambda: SelfNormalizingStridedConv2d(2, 2), 2, 4, 6),
}
"""All layers, by name; a layer has several entries if an option changes its computation."""


def bijection_classes() -> set[type[Bijection]]:
    """Return every bijection class of the library, abstract or final."""
    return {member for member in _classes() if issubclass(member, Bijection)}


def transformer_classes() -> set[type[Transformer]]:
    """Return every transformer class of the library, abstract or final."""
    return {member for member in _classes() if issubclass(member, Transformer)}


def _classes() -> Iterator[type]:
    packages: tuple[ModuleType, ...] = (snflow.bijections, snflow.selfnorm)
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for _, member in inspect.getmembers(importlib.import_module(module.name), inspect.isclass):
                if member.__module__.startswith("snflow."):
                    yield member
