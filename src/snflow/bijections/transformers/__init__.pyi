from . import affine as affine
from . import base as base
from . import monotone as monotone
from . import spline as spline
