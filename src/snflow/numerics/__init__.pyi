from . import (
    compilation as compilation,
)
from . import (
    convolution_matrices as convolution_matrices,
)
from . import (
    devices as devices,
)
from . import (
    factorization as factorization,
)
from . import (
    fixed_point as fixed_point,
)
from . import (
    implicit as implicit,
)
from . import (
    jacobian as jacobian,
)
from . import (
    krylov as krylov,
)
from . import (
    monotone as monotone,
)
from . import (
    operators as operators,
)
from . import (
    probes as probes,
)
from . import (
    root_finding as root_finding,
)
from . import (
    splines as splines,
)
from . import (
    transforms as transforms,
)
from . import (
    undifferentiable as undifferentiable,
)
