"""Layers that bring activations to a common scale."""

from snflow.bijections.normalization.actnorm import ActNorm as ActNorm
