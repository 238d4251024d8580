"""The contract of a bijection as a test suite: a catalogue of all layers, and checks that every layer passes."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
