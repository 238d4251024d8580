"""Plain networks: the conditioners of couplings, and the f and g of a self-normalizing pair."""

from snflow.nets.convnet import ConvNet as ConvNet
from snflow.nets.residual import ResidualMLP as ResidualMLP
