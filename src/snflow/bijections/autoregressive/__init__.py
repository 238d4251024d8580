"""Autoregressive layers: triangular Jacobians, one direction in one pass."""

from snflow.bijections.autoregressive.masked import Autoregressive as Autoregressive
