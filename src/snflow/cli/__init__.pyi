from . import arguments as arguments
from . import fit as fit
from . import main as main
from . import recipes as recipes
from . import trained as trained
