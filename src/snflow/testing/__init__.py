"""The public contract: a catalogue of every layer, and the checks that run on each."""

from snflow.testing.case import Case as Case
from snflow.testing.catalogue import CATALOGUE as CATALOGUE
from snflow.testing.checks import CHECKS as CHECKS
from snflow.testing.checks import ContractError as ContractError
from snflow.testing.checks import check as check
from snflow.testing.foreign import ForeignLayer as ForeignLayer
