"""Krylov spaces: iterative solves with an approximate inverse at hand, and the direction that a map stretches most."""

from snflow.numerics.krylov.lanczos import leading_direction as leading_direction
from snflow.numerics.krylov.solving import gmres as gmres
from snflow.numerics.krylov.solving import refine as refine
