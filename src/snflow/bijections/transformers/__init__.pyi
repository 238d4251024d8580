from . import affine as affine
from . import monotone as monotone
from . import spline as spline
from . import transformer as transformer
