"""Solutions of x = f(x), row by row: plain and accelerated iteration, and their gradients."""

from snflow.numerics.fixed_point.anderson import anderson as anderson
from snflow.numerics.fixed_point.implicit import implicit_fixed_point as implicit_fixed_point
from snflow.numerics.fixed_point.picard import picard as picard
