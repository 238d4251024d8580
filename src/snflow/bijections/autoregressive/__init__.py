"""Autoregressive layers: triangular Jacobians, one direction in one pass."""

from snflow.bijections.autoregressive.block import BlockAutoregressive as BlockAutoregressive
from snflow.bijections.autoregressive.masked import Autoregressive as Autoregressive
