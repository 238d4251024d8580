from . import invertible as invertible
from . import planar as planar
from . import sylvester as sylvester
