"""Layers that bring activations to a common scale."""

from snflow.bijections.normalization.actnorm import ActNorm as ActNorm
from snflow.bijections.normalization.batchnorm import BatchNorm as BatchNorm
