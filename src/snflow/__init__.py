"""snflow: normalizing flows in PyTorch, trained without determinants: each layer learns its own inverse.

Everything that a user types is here; it is imported on first use, so that ``import snflow`` alone loads neither
torch, matplotlib nor Lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from snflow.lazy import lazily

if TYPE_CHECKING:
    from snflow import data as data
    from snflow import errors as errors
    from snflow import flows as flows
    from snflow import nets as nets
    from snflow import variational as variational
    from snflow.bijections import CDF as CDF
    from snflow.bijections import GDN as GDN
    from snflow.bijections import ActNorm as ActNorm
    from snflow.bijections import AdditiveTransformer as AdditiveTransformer
    from snflow.bijections import Affine as Affine
    from snflow.bijections import AffineCoupling as AffineCoupling
    from snflow.bijections import AffineTransformer as AffineTransformer
    from snflow.bijections import Autoregressive as Autoregressive
    from snflow.bijections import AutoregressiveConv2d as AutoregressiveConv2d
    from snflow.bijections import BatchNorm as BatchNorm
    from snflow.bijections import Bijection as Bijection
    from snflow.bijections import BlockAutoregressive as BlockAutoregressive
    from snflow.bijections import Chain as Chain
    from snflow.bijections import CircularSplineTransformer as CircularSplineTransformer
    from snflow.bijections import ContinuousFlow as ContinuousFlow
    from snflow.bijections import Conv2d as Conv2d
    from snflow.bijections import ConvExponential as ConvExponential
    from snflow.bijections import Coupling as Coupling
    from snflow.bijections import CubicSplineTransformer as CubicSplineTransformer
    from snflow.bijections import Dense as Dense
    from snflow.bijections import Elementwise as Elementwise
    from snflow.bijections import EmergingConv2d as EmergingConv2d
    from snflow.bijections import Flatten as Flatten
    from snflow.bijections import GatedTransformer as GatedTransformer
    from snflow.bijections import Gaussianization as Gaussianization
    from snflow.bijections import GeneralizedSylvester as GeneralizedSylvester
    from snflow.bijections import HouseholderLinear as HouseholderLinear
    from snflow.bijections import IntegralTransformer as IntegralTransformer
    from snflow.bijections import Inverse as Inverse
    from snflow.bijections import InvertibleResidual as InvertibleResidual
    from snflow.bijections import LeakyReLU as LeakyReLU
    from snflow.bijections import LinearSplineTransformer as LinearSplineTransformer
    from snflow.bijections import LogisticMixtureTransformer as LogisticMixtureTransformer
    from snflow.bijections import Logit as Logit
    from snflow.bijections import LULinear as LULinear
    from snflow.bijections import MaskedResidualConv2d as MaskedResidualConv2d
    from snflow.bijections import OrthogonalLinear as OrthogonalLinear
    from snflow.bijections import PeriodicConv2d as PeriodicConv2d
    from snflow.bijections import Permutation as Permutation
    from snflow.bijections import Planar as Planar
    from snflow.bijections import PLUConv2d as PLUConv2d
    from snflow.bijections import QRLinear as QRLinear
    from snflow.bijections import QuadraticSplineTransformer as QuadraticSplineTransformer
    from snflow.bijections import Radial as Radial
    from snflow.bijections import RationalQuadraticSpline as RationalQuadraticSpline
    from snflow.bijections import RationalQuadraticTransformer as RationalQuadraticTransformer
    from snflow.bijections import Reversible as Reversible
    from snflow.bijections import Scaling as Scaling
    from snflow.bijections import SigmoidalTransformer as SigmoidalTransformer
    from snflow.bijections import SmoothLeakyReLU as SmoothLeakyReLU
    from snflow.bijections import Split as Split
    from snflow.bijections import Squeeze as Squeeze
    from snflow.bijections import SumOfSquaresTransformer as SumOfSquaresTransformer
    from snflow.bijections import SVDLinear as SVDLinear
    from snflow.bijections import Sylvester as Sylvester
    from snflow.bijections import TanhTransformer as TanhTransformer
    from snflow.bijections import Transformer as Transformer
    from snflow.bijections import TriangularLinear as TriangularLinear
    from snflow.bijections import Woodbury as Woodbury
    from snflow.bijections import inverting as inverting
    from snflow.distributions import BaseDensity as BaseDensity
    from snflow.distributions import DiagonalNormal as DiagonalNormal
    from snflow.distributions import Flow as Flow
    from snflow.distributions import FlowDistribution as FlowDistribution
    from snflow.distributions import FoldedDensity as FoldedDensity
    from snflow.distributions import Logistic as Logistic
    from snflow.distributions import NormalMixture as NormalMixture
    from snflow.distributions import StandardNormal as StandardNormal
    from snflow.distributions import Uniform as Uniform
    from snflow.distributions import UniformDequantization as UniformDequantization
    from snflow.distributions import VariationalDequantization as VariationalDequantization
    from snflow.distributions import as_transform as as_transform
    from snflow.distributions import bits_per_dim as bits_per_dim
    from snflow.distributions import mean_nll as mean_nll
    from snflow.selfnorm import LearnedInverse as LearnedInverse
    from snflow.selfnorm import SelfNormalizing as SelfNormalizing
    from snflow.selfnorm import SelfNormalizingConv2d as SelfNormalizingConv2d
    from snflow.selfnorm import SelfNormalizingDense as SelfNormalizingDense
    from snflow.selfnorm import SelfNormalizingStridedConv2d as SelfNormalizingStridedConv2d
    from snflow.selfnorm import gradient_angles as gradient_angles
    from snflow.selfnorm import layer_diagnostics as layer_diagnostics
    from snflow.selfnorm import refresh_inverses as refresh_inverses

__version__ = "0.1.0"

_NAMES = {
    "snflow.bijections": (
        "ActNorm AdditiveTransformer Affine AffineCoupling AffineTransformer Autoregressive "
        "AutoregressiveConv2d BatchNorm Bijection BlockAutoregressive CDF Chain CircularSplineTransformer "
        "ContinuousFlow Conv2d ConvExponential Coupling CubicSplineTransformer Dense Elementwise "
        "EmergingConv2d Flatten GDN GatedTransformer Gaussianization GeneralizedSylvester HouseholderLinear "
        "IntegralTransformer Inverse InvertibleResidual LULinear LeakyReLU LinearSplineTransformer "
        "LogisticMixtureTransformer Logit MaskedResidualConv2d OrthogonalLinear PLUConv2d PeriodicConv2d "
        "Permutation Planar QRLinear QuadraticSplineTransformer Radial RationalQuadraticSpline "
        "RationalQuadraticTransformer Reversible SVDLinear Scaling SigmoidalTransformer SmoothLeakyReLU Split "
        "Squeeze SumOfSquaresTransformer Sylvester TanhTransformer Transformer TriangularLinear Woodbury inverting"
    ),
    "snflow.distributions": (
        "BaseDensity DiagonalNormal Flow FlowDistribution FoldedDensity Logistic NormalMixture StandardNormal "
        "Uniform UniformDequantization VariationalDequantization as_transform bits_per_dim mean_nll"
    ),
    "snflow.selfnorm": (
        "LearnedInverse SelfNormalizing SelfNormalizingConv2d SelfNormalizingDense SelfNormalizingStridedConv2d "
        "gradient_angles layer_diagnostics refresh_inverses"
    ),
}
_SUBPACKAGES = ("data", "errors", "flows", "nets", "testing", "variational")
_HOMES = {name: home for home, names in _NAMES.items() for name in names.split()}

__all__ = sorted([*_HOMES, *_SUBPACKAGES])

__getattr__ = lazily(__name__, _HOMES, _SUBPACKAGES)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
