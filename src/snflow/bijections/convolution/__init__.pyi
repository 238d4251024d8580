from . import (
    conv2d as conv2d,
)
from . import (
    emerging as emerging,
)
from . import (
    exponential as exponential,
)
from . import (
    masked_residual as masked_residual,
)
from . import (
    periodic as periodic,
)
