from .batches import Batches as Batches
from .batches import in_order as in_order
from .dataset import (
    DATASETS as DATASETS,
)
from .dataset import (
    Cifar10Options as Cifar10Options,
)
from .dataset import (
    Dataset as Dataset,
)
from .dataset import (
    DatasetOptions as DatasetOptions,
)
from .dataset import (
    DigitsOptions as DigitsOptions,
)
from .dataset import (
    Imagenet32Options as Imagenet32Options,
)
from .dataset import (
    MnistOptions as MnistOptions,
)
from .dataset import (
    TableOptions as TableOptions,
)
from .dataset import (
    ToyOptions as ToyOptions,
)
from .registry import load as load
