from . import (
    diagnostics as diagnostics,
)
from . import (
    followers as followers,
)
from . import (
    gradient as gradient,
)
from . import (
    layers as layers,
)
from . import (
    multiplier as multiplier,
)
from . import (
    options as options,
)
from . import (
    pair as pair,
)
from . import (
    tracking as tracking,
)
