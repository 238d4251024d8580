"""Flows as variational models."""

from snflow.variational.stochastic_inverse import StochasticInverse as StochasticInverse
