"""Roots of increasing functions, elementwise: brackets, bisection, Newton's and Chandrupatla's methods, gradients."""

from snflow.numerics.root_finding.bisection import bisect as bisect
from snflow.numerics.root_finding.chandrupatla import chandrupatla as chandrupatla
from snflow.numerics.root_finding.implicit import RootSolver as RootSolver
from snflow.numerics.root_finding.implicit import implicit_inverse as implicit_inverse
from snflow.numerics.root_finding.newton import invert_increasing as invert_increasing
