"""Couplings: one part of the event is mapped by what another part says."""

from snflow.bijections.coupling.affine import AffineCoupling as AffineCoupling
from snflow.bijections.coupling.coupling import Coupling as Coupling
from snflow.bijections.coupling.masks import alternating as alternating
from snflow.bijections.coupling.masks import checkerboard as checkerboard
from snflow.bijections.coupling.masks import halves as halves
