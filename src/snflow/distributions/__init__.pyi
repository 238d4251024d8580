from . import base as base
from . import dequantization as dequantization
from . import flow as flow
from . import torch_distribution as torch_distribution
