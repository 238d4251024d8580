"""Monotone maps of a single element: what couplings and autoregressive layers do to each element."""

from snflow.bijections.transformers.affine import AdditiveTransformer as AdditiveTransformer
from snflow.bijections.transformers.affine import AffineTransformer as AffineTransformer
from snflow.bijections.transformers.affine import GatedTransformer as GatedTransformer
from snflow.bijections.transformers.base import Transformer as Transformer
from snflow.bijections.transformers.integral import IntegralTransformer as IntegralTransformer
from snflow.bijections.transformers.integral import SumOfSquaresTransformer as SumOfSquaresTransformer
from snflow.bijections.transformers.piecewise import CubicSplineTransformer as CubicSplineTransformer
from snflow.bijections.transformers.piecewise import LinearSplineTransformer as LinearSplineTransformer
from snflow.bijections.transformers.piecewise import QuadraticSplineTransformer as QuadraticSplineTransformer
from snflow.bijections.transformers.rational_quadratic import CircularSplineTransformer as CircularSplineTransformer
from snflow.bijections.transformers.rational_quadratic import (
    RationalQuadraticTransformer as RationalQuadraticTransformer,
)
from snflow.bijections.transformers.sigmoidal import LogisticMixtureTransformer as LogisticMixtureTransformer
from snflow.bijections.transformers.sigmoidal import SigmoidalTransformer as SigmoidalTransformer
from snflow.bijections.transformers.tanh import TanhTransformer as TanhTransformer
