"""How the training loop takes a step: at once, or as a recording that is replayed."""

from snflow.training.engine.steps.base import Asked as Asked
from snflow.training.engine.steps.base import Steps as Steps
from snflow.training.engine.steps.base import Taken as Taken
from snflow.training.engine.steps.setting_up import matmul_precision as matmul_precision
from snflow.training.engine.steps.setting_up import portable as portable
from snflow.training.engine.steps.setting_up import set_up as set_up
