"""Whether a transform of torch.func is at work."""

from __future__ import annotations

import torch


def under_transform() -> bool:
    """Whether ``vmap``, ``grad`` or another transform of ``torch.func`` is tracing the present call.

    Under one a tensor may stand for many: values can be neither compared nor kept, and a plain tensor cannot be written
    into. A compiled call traces transforms by itself and answers no.

    Example:
        >>> under_transform()
        False
        >>> seen = []
        >>> _ = torch.func.vmap(lambda x: seen.append(under_transform()) or x)(torch.ones(2))
        >>> seen
        [True]
    """
    return not torch.compiler.is_compiling() and torch._C._functorch.peek_interpreter_stack() is not None
