"""The public names of snflow, each listed once; loaded on first use."""

from . import (
    bijections as bijections,
)
from . import (
    cli as cli,
)
from . import (
    data as data,
)
from . import (
    distributions as distributions,
)
from . import (
    errors as errors,
)
from . import (
    flows as flows,
)
from . import (
    interop as interop,
)
from . import (
    nets as nets,
)
from . import (
    numerics as numerics,
)
from . import (
    plot as plot,
)
from . import (
    selfnorm as selfnorm,
)
from . import (
    testing as testing,
)
from . import (
    train as train,
)
from . import (
    variational as variational,
)
from .bijections.autoregressive import Autoregressive as Autoregressive
from .bijections.autoregressive import BlockAutoregressive as BlockAutoregressive
from .bijections.base import Bijection as Bijection
from .bijections.chain import Chain as Chain
from .bijections.context import ContextEmbedding as ContextEmbedding
from .bijections.continuous import ContinuousFlow as ContinuousFlow
from .bijections.convolution.conv2d import Conv2d as Conv2d
from .bijections.convolution.conv2d import PLUConv2d as PLUConv2d
from .bijections.convolution.conv2d import Woodbury as Woodbury
from .bijections.convolution.emerging import (
    AutoregressiveConv2d as AutoregressiveConv2d,
)
from .bijections.convolution.emerging import (
    EmergingConv2d as EmergingConv2d,
)
from .bijections.convolution.exponential import ConvExponential as ConvExponential
from .bijections.convolution.masked_residual import MaskedResidualConv2d as MaskedResidualConv2d
from .bijections.convolution.periodic import PeriodicConv2d as PeriodicConv2d
from .bijections.coupling import Coupling as Coupling
from .bijections.coupling import affine_coupling as affine_coupling
from .bijections.elementwise import (
    CDF as CDF,
)
from .bijections.elementwise import (
    Affine as Affine,
)
from .bijections.elementwise import (
    Elementwise as Elementwise,
)
from .bijections.elementwise import (
    LeakyReLU as LeakyReLU,
)
from .bijections.elementwise import (
    Logit as Logit,
)
from .bijections.elementwise import (
    Scaling as Scaling,
)
from .bijections.elementwise import (
    SmoothLeakyReLU as SmoothLeakyReLU,
)
from .bijections.elementwise import (
    rational_quadratic_spline as rational_quadratic_spline,
)
from .bijections.factored_linear import (
    HouseholderLinear as HouseholderLinear,
)
from .bijections.factored_linear import (
    LULinear as LULinear,
)
from .bijections.factored_linear import (
    OrthogonalLinear as OrthogonalLinear,
)
from .bijections.factored_linear import (
    QRLinear as QRLinear,
)
from .bijections.factored_linear import (
    SVDLinear as SVDLinear,
)
from .bijections.factored_linear import (
    TriangularLinear as TriangularLinear,
)
from .bijections.gaussianization import GDN as GDN
from .bijections.gaussianization import Gaussianization as Gaussianization
from .bijections.inverse import Inverse as Inverse
from .bijections.linear import Dense as Dense
from .bijections.linear import Permutation as Permutation
from .bijections.normalization import ActNorm as ActNorm
from .bijections.normalization import BatchNorm as BatchNorm
from .bijections.reshaping import Flatten as Flatten
from .bijections.reshaping import Split as Split
from .bijections.reshaping import Squeeze as Squeeze
from .bijections.residual.invertible import InvertibleResidual as InvertibleResidual
from .bijections.residual.planar import Planar as Planar
from .bijections.residual.planar import Radial as Radial
from .bijections.residual.sylvester import GeneralizedSylvester as GeneralizedSylvester
from .bijections.residual.sylvester import Sylvester as Sylvester
from .bijections.reversible import Reversible as Reversible
from .bijections.transformers.affine import (
    AdditiveTransformer as AdditiveTransformer,
)
from .bijections.transformers.affine import (
    AffineTransformer as AffineTransformer,
)
from .bijections.transformers.affine import (
    GatedTransformer as GatedTransformer,
)
from .bijections.transformers.affine import (
    TanhTransformer as TanhTransformer,
)
from .bijections.transformers.monotone import (
    IntegralTransformer as IntegralTransformer,
)
from .bijections.transformers.monotone import (
    LogisticMixtureTransformer as LogisticMixtureTransformer,
)
from .bijections.transformers.monotone import (
    SigmoidalTransformer as SigmoidalTransformer,
)
from .bijections.transformers.monotone import (
    SumOfSquaresTransformer as SumOfSquaresTransformer,
)
from .bijections.transformers.spline import (
    CircularSplineTransformer as CircularSplineTransformer,
)
from .bijections.transformers.spline import (
    CubicSplineTransformer as CubicSplineTransformer,
)
from .bijections.transformers.spline import (
    LinearSplineTransformer as LinearSplineTransformer,
)
from .bijections.transformers.spline import (
    QuadraticSplineTransformer as QuadraticSplineTransformer,
)
from .bijections.transformers.spline import (
    RationalQuadraticTransformer as RationalQuadraticTransformer,
)
from .bijections.transformers.transformer import Transformer as Transformer
from .distributions.base import (
    BaseDensity as BaseDensity,
)
from .distributions.base import (
    DiagonalNormal as DiagonalNormal,
)
from .distributions.base import (
    FoldedDensity as FoldedDensity,
)
from .distributions.base import (
    Logistic as Logistic,
)
from .distributions.base import (
    NormalMixture as NormalMixture,
)
from .distributions.base import (
    StandardNormal as StandardNormal,
)
from .distributions.base import (
    Uniform as Uniform,
)
from .distributions.dequantization import (
    UniformDequantization as UniformDequantization,
)
from .distributions.dequantization import (
    VariationalDequantization as VariationalDequantization,
)
from .distributions.flow import Flow as Flow
from .distributions.flow import bits_per_dim as bits_per_dim
from .distributions.flow import mean_nll as mean_nll
from .distributions.flow import mean_nll_with_error as mean_nll_with_error
from .distributions.storage import load as load
from .distributions.storage import save as save
from .distributions.torch_distribution import FlowDistribution as FlowDistribution
from .distributions.torch_distribution import as_transform as as_transform
from .flows.preprocessing import dequantized as dequantized
from .flows.preprocessing import preprocess as preprocess
from .flows.preprocessing import standardized as standardized
from .flows.preprocessing import with_base as with_base
from .flows.preprocessing import with_context_embedding as with_context_embedding
from .interop.scikit_learn import FlowClassifier as FlowClassifier
from .interop.scikit_learn import FlowDensity as FlowDensity
from .interop.scikit_learn import FlowRegressor as FlowRegressor
from .selfnorm.diagnostics import (
    gradient_angles as gradient_angles,
)
from .selfnorm.diagnostics import (
    layer_diagnostics as layer_diagnostics,
)
from .selfnorm.diagnostics import (
    refresh_inverses as refresh_inverses,
)
from .selfnorm.layers import (
    SelfNormalizingConv2d as SelfNormalizingConv2d,
)
from .selfnorm.layers import (
    SelfNormalizingDense as SelfNormalizingDense,
)
from .selfnorm.layers import (
    SelfNormalizingStridedConv2d as SelfNormalizingStridedConv2d,
)
from .selfnorm.newton import Newton as Newton
from .selfnorm.pair import SelfNormalizing as SelfNormalizing
from .selfnorm.penalty import Penalty as Penalty
from .selfnorm.secant import Secant as Secant
from .selfnorm.tracking import Tracking as Tracking
from .train.fitting import FitReport as FitReport
from .train.fitting import fit as fit

__version__: str
