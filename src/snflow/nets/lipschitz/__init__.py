"""Networks whose Lipschitz constant is bounded by construction."""

from snflow.nets.lipschitz.activation import CLipSwish as CLipSwish
from snflow.nets.lipschitz.activation import LipSwish as LipSwish
from snflow.nets.lipschitz.densenet import LipschitzDenseNet as LipschitzDenseNet
from snflow.nets.lipschitz.network import LipschitzNet as LipschitzNet
from snflow.nets.lipschitz.spectral import SpectralConv2d as SpectralConv2d
from snflow.nets.lipschitz.spectral import SpectralLinear as SpectralLinear
