"""Transformers: monotone maps of one element, for element-wise, coupling and autoregressive layers."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
