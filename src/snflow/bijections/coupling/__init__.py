"""Couplings: one part of the event is mapped by what another part says."""

from snflow.bijections.coupling.affine import AffineCoupling as AffineCoupling
