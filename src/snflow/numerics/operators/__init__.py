"""The linear operators under dense and convolutional layers, as pure functions of a weight."""

from snflow.numerics.operators.base import Operator as Operator
from snflow.numerics.operators.conv import ConvOperator as ConvOperator
from snflow.numerics.operators.conv import resized as resized
from snflow.numerics.operators.dense import DenseOperator as DenseOperator
from snflow.numerics.operators.dense import TransposedDenseOperator as TransposedDenseOperator
from snflow.numerics.operators.dense import relative_gradient as relative_gradient
