"""From integers to real numbers: noise with a density of its own."""

from snflow.distributions.dequantization.base import Dequantization as Dequantization
from snflow.distributions.dequantization.uniform import UniformDequantization as UniformDequantization
from snflow.distributions.dequantization.variational import VariationalDequantization as VariationalDequantization
