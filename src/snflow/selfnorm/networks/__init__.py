"""Self-normalization of any pair of networks."""

from snflow.numerics.probes import ProbeName as ProbeName
from snflow.selfnorm.networks.pair import SelfNormalizing as SelfNormalizing
