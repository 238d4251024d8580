"""Convolutions on images."""

from snflow.bijections.conv.autoregressive import AutoregressiveConv2d as AutoregressiveConv2d
from snflow.bijections.conv.dense_kernel import Conv2d as Conv2d
from snflow.bijections.conv.emerging import EmergingConv2d as EmergingConv2d
from snflow.bijections.conv.exponential import ConvExponential as ConvExponential
from snflow.bijections.conv.masked_residual import MaskedResidualConv2d as MaskedResidualConv2d
from snflow.bijections.conv.periodic import PeriodicConv2d as PeriodicConv2d
from snflow.bijections.conv.plu import PLUConv2d as PLUConv2d
from snflow.bijections.conv.woodbury import Woodbury as Woodbury
