"""The contract as a test suite: a catalogue of every layer, and the checks that run on each."""

import lazy_loader as _lazy

__getattr__, __dir__, __all__ = _lazy.attach_stub(__name__, __file__)
