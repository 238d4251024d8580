from .convnet import AttentionConvNet as AttentionConvNet
from .convnet import ConvNet as ConvNet
from .convnet import ResidualConvNet as ResidualConvNet
from .lipschitz import (
    CLipSwish as CLipSwish,
)
from .lipschitz import (
    LipschitzDenseNet as LipschitzDenseNet,
)
from .lipschitz import (
    LipschitzNet as LipschitzNet,
)
from .lipschitz import (
    LipSwish as LipSwish,
)
from .masked import MaskedMLP as MaskedMLP
from .mlp import MLP as MLP
from .mlp import PeriodicMLP as PeriodicMLP
from .mlp import ResidualMLP as ResidualMLP
from .spectral_norm import SpectralConv2d as SpectralConv2d
from .spectral_norm import SpectralLinear as SpectralLinear
from .velocity import VelocityNet as VelocityNet
