from .fit import FitResult as FitResult
from .fit import fit as fit
from .recipe import Recipe as Recipe
from .recipe import available_recipes as available_recipes
from .recipe import load_recipe as load_recipe
from .run_folder import RunFolder as RunFolder
from .run_folder import load_flow as load_flow
