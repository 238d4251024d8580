"""The digits that scikit-learn ships: real scans that need no download."""

from __future__ import annotations

import torch

from snflow.data.dataset import Dataset, split_rows
from snflow.data.options import DigitsOptions
from snflow.errors import ConfigError

LEVELS = 17
"""A pixel counts the dark dots in a 4×4 block of the scan: 0 to 16."""


def load_digits(options: DigitsOptions) -> Dataset:
    """Load the 8×8 digits, dealt into three splits by the seed.

    Args:
        options: the sizes of the splits, and the seed.

    Returns:
        Images with shape ``(N, 1, 8, 8)``, uint8 in 17 levels.

    Raises:
        ConfigError: the splits ask for more images than there are.

    Example:
        >>> load_digits(DigitsOptions()).test.shape
        torch.Size([300, 1, 8, 8])
    """
    from sklearn import datasets  # a second to import, and only this dataset needs it

    images = torch.from_numpy(datasets.load_digits().images).to(torch.uint8).unsqueeze(1)
    sizes = (options.train, options.validation, options.test)
    if sum(sizes) > len(images):
        raise ConfigError(
            "digits", expected=f"splits of {len(images)} images together", got=f"{sum(sizes)}", fix="ask for fewer"
        )
    return Dataset("digits", *split_rows(images, sizes, options.seed), levels=LEVELS)
