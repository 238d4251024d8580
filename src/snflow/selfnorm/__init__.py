"""The method: layers that learn their own inverse, and the gradient rule that uses it."""

from snflow.selfnorm.conv import SelfNormalizingConv2d as SelfNormalizingConv2d
from snflow.selfnorm.dense import SelfNormalizingDense as SelfNormalizingDense
from snflow.selfnorm.diagnostics import LayerDiagnostics as LayerDiagnostics
from snflow.selfnorm.diagnostics import layer_diagnostics as layer_diagnostics
from snflow.selfnorm.inversion import InverseMethod as InverseMethod
from snflow.selfnorm.inversion import inverting as inverting
from snflow.selfnorm.self_normalizing import SelfNormalizingMap as SelfNormalizingMap
