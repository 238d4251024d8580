"""Layers that add to x: z = x + g(x), one-to-one by what bounds g."""

from snflow.bijections.residual.generalized_sylvester import GeneralizedSylvester as GeneralizedSylvester
from snflow.bijections.residual.invertible import InvertibleResidual as InvertibleResidual
from snflow.bijections.residual.invertible import log_det_spread as log_det_spread
from snflow.bijections.residual.planar import Planar as Planar
from snflow.bijections.residual.planar import Radial as Radial
from snflow.bijections.residual.sylvester import Sylvester as Sylvester
