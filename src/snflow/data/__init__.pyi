"""The public names of snflow.data; recipes may name the functions that return a ``Dataset``."""

from .batches import Augmentation as Augmentation
from .batches import Batches as Batches
from .batches import in_order as in_order
from .dataset import Dataset as Dataset
from .dataset import datasets as datasets
from .image_files import image_files as image_files
from .images import cifar10 as cifar10
from .images import digits as digits
from .images import imagenet32 as imagenet32
from .images import mnist as mnist
from .tables import table as table
from .toys import toy as toy
