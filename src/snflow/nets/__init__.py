"""Plain networks: the conditioners of couplings, and the f and g of a self-normalizing pair."""

from snflow.nets.attention import AttentionConvNet as AttentionConvNet
from snflow.nets.convnet import ConvNet as ConvNet
from snflow.nets.masked import MaskedMLP as MaskedMLP
from snflow.nets.mlp import MLP as MLP
from snflow.nets.periodic import PeriodicMLP as PeriodicMLP
from snflow.nets.residual import ResidualMLP as ResidualMLP
from snflow.nets.resnet import ResidualConvNet as ResidualConvNet
