"""Linear layers on vectors."""

from snflow.bijections.linear.decompositions import LULinear as LULinear
from snflow.bijections.linear.decompositions import QRLinear as QRLinear
from snflow.bijections.linear.decompositions import SVDLinear as SVDLinear
from snflow.bijections.linear.dense import Dense as Dense
from snflow.bijections.linear.linear_map import LinearMap as LinearMap
from snflow.bijections.linear.linear_map import LogDetRule as LogDetRule
from snflow.bijections.linear.orthogonal import HouseholderLinear as HouseholderLinear
from snflow.bijections.linear.orthogonal import OrthogonalLinear as OrthogonalLinear
from snflow.bijections.linear.permutation import Permutation as Permutation
from snflow.bijections.linear.triangular import TriangularLinear as TriangularLinear
