from . import (
    autoregressive as autoregressive,
)
from . import (
    base as base,
)
from . import (
    chain as chain,
)
from . import (
    continuous as continuous,
)
from . import (
    convolution as convolution,
)
from . import (
    coupling as coupling,
)
from . import (
    elementwise as elementwise,
)
from . import (
    factored_linear as factored_linear,
)
from . import (
    gaussianization as gaussianization,
)
from . import (
    inverse as inverse,
)
from . import (
    linear as linear,
)
from . import (
    normalization as normalization,
)
from . import (
    reshaping as reshaping,
)
from . import (
    residual as residual,
)
from . import (
    reversible as reversible,
)
from . import (
    transformers as transformers,
)
