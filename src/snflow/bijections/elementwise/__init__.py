"""Maps of each element by itself: the Jacobian is diagonal."""

from snflow.bijections.elementwise.affine import Affine as Affine
from snflow.bijections.elementwise.cdf import CDF as CDF
from snflow.bijections.elementwise.leaky_relu import LeakyReLU as LeakyReLU
from snflow.bijections.elementwise.logit import Logit as Logit
from snflow.bijections.elementwise.scaling import Scaling as Scaling
from snflow.bijections.elementwise.smooth_leaky_relu import SmoothLeakyReLU as SmoothLeakyReLU
from snflow.bijections.elementwise.spline import RationalQuadraticSpline as RationalQuadraticSpline
from snflow.bijections.elementwise.transformed import Elementwise as Elementwise
