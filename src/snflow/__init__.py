"""Normalizing flows in PyTorch, trained without an expensive determinant: each layer learns its own inverse.

Public names are listed once, in ``__init__.pyi``, and loaded on first use: ``import snflow`` alone loads neither
torch, matplotlib nor Lightning.
"""

import lazy_loader as _lazy

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
