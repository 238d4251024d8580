"""The modules of the command line."""

from . import commands as commands
from . import main as main
