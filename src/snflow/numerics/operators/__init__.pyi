from . import conv as conv
from . import conv_rows as conv_rows
from . import dense as dense
