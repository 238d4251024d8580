"""Layers that bring activations to a common scale."""

from snflow.bijections.normalization.actnorm import ActNorm as ActNorm
from snflow.bijections.normalization.batchnorm import BatchNorm as BatchNorm
from snflow.bijections.normalization.gaussianization import Gaussianization as Gaussianization
from snflow.bijections.normalization.gdn import GDN as GDN
