"""Invertible layers, one family a folder."""

from snflow.bijections.base import Bijection as Bijection
from snflow.bijections.chain import Chain as Chain
from snflow.bijections.conv import Conv2d as Conv2d
from snflow.bijections.elementwise import Affine as Affine
from snflow.bijections.elementwise import LeakyReLU as LeakyReLU
from snflow.bijections.elementwise import Logit as Logit
from snflow.bijections.elementwise import RationalQuadraticSpline as RationalQuadraticSpline
from snflow.bijections.elementwise import SmoothLeakyReLU as SmoothLeakyReLU
from snflow.bijections.inverse import Inverse as Inverse
from snflow.bijections.linear import Dense as Dense
from snflow.bijections.linear import LinearMap as LinearMap
from snflow.bijections.reshaping import Flatten as Flatten
from snflow.bijections.reshaping import Squeeze as Squeeze
