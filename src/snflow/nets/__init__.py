"""Plain networks: the conditioners of couplings, and the f and g of a self-normalizing pair."""

from snflow.nets.convnet import ConvNet as ConvNet
from snflow.nets.masked import MaskedMLP as MaskedMLP
from snflow.nets.mlp import MLP as MLP
from snflow.nets.residual import ResidualMLP as ResidualMLP
