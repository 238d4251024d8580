"""Base densities, dequantization, and the flow that joins them to a bijection."""

from snflow.distributions.base import BaseDensity as BaseDensity
from snflow.distributions.dequantization import Dequantization as Dequantization
from snflow.distributions.dequantization import UniformDequantization as UniformDequantization
from snflow.distributions.dequantization import VariationalDequantization as VariationalDequantization
from snflow.distributions.facade import FlowDistribution as FlowDistribution
from snflow.distributions.facade import as_transform as as_transform
from snflow.distributions.flow import Flow as Flow
from snflow.distributions.folded import FoldedDensity as FoldedDensity
from snflow.distributions.likelihood import bits_per_dim as bits_per_dim
from snflow.distributions.likelihood import mean_nll as mean_nll
from snflow.distributions.logistic import Logistic as Logistic
from snflow.distributions.mixture import NormalMixture as NormalMixture
from snflow.distributions.normal import DiagonalNormal as DiagonalNormal
from snflow.distributions.normal import StandardNormal as StandardNormal
from snflow.distributions.uniform import Uniform as Uniform
