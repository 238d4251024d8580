"""Monotone maps of a single element, one a file: what couplings and autoregressive layers do to each element."""

from snflow.bijections.transformers.affine import AdditiveTransformer as AdditiveTransformer
from snflow.bijections.transformers.affine import AffineTransformer as AffineTransformer
from snflow.bijections.transformers.affine import GatedTransformer as GatedTransformer
from snflow.bijections.transformers.base import Transformer as Transformer
from snflow.bijections.transformers.rational_quadratic import CircularSplineTransformer as CircularSplineTransformer
from snflow.bijections.transformers.rational_quadratic import (
    RationalQuadraticTransformer as RationalQuadraticTransformer,
)
