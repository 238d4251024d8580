from .cases import CATALOGUE as CATALOGUE
from .cases import Case as Case
from .checks import CHECKS as CHECKS
from .checks import ContractError as ContractError
from .checks import check as check
from .foreign import ForeignLayer as ForeignLayer
