"""Self-normalization of any pair of networks."""

from snflow.selfnorm.networks.pair import SelfNormalizing as SelfNormalizing
from snflow.selfnorm.networks.probes import ProbeName as ProbeName
