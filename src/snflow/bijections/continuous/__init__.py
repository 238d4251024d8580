"""Layers that are the flow of a differential equation."""

from snflow.bijections.continuous.flow import ContinuousFlow as ContinuousFlow
