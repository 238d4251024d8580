"""Warnings about samples that a flow does not map back to where they came from."""

from __future__ import annotations

import warnings
from typing import final

import torch
from torch import Tensor, nn
from torch.distributions import constraints

from snflow.bijections.base import Bijection, InverseMethod, relative_error
from snflow.errors import NotInvertibleError, NumericalWarning
from snflow.numerics.transforms import is_recorded, under_transform

_ROWS = 8
"""The number of samples that are mapped back after a change of the weights."""

_TOLERANCE = 1e-2
"""The largest error without a warning, relative to max(1, |value|)."""

_FRAMES = 4
"""The warning points to the caller of :meth:`Flow.sample`: beyond the check, the method and its decorator."""


@final
class SampleCheck:
    """Warns if samples x = f⁻¹(z) are not finite, or if f(x) differs from z.

    Where data or latents are bounded, a layer may have clamped them; there f⁻¹(f(x)) is compared with x instead. The
    comparison is made in ``eval()`` only, because in ``train()`` some layers adapt to their data, and for at most eight
    rows until the weights change. A change is detected by version counters and, since a fused optimizer does not
    increment them, by a few values of three parameters.
    """

    def __init__(self) -> None:
        self._parameters: list[nn.Parameter] = []
        self._weights: tuple[object, ...] | None = None
        self._rows = 0

    def __getstate__(self) -> dict[str, object]:
        """Forget the weights in copies, which have their own."""
        return vars(SampleCheck())

    def __call__(
        self, bijection: Bijection, z: Tensor, x: Tensor, context: Tensor | None, inverse: InverseMethod | None
    ) -> None:
        """Check samples x, drawn with latents z, both with a batch dimension.

        Warns:
            NumericalWarning: some are not finite, or are not mapped back.
        """
        if is_recorded() or under_transform() or x.is_meta or not x.numel():
            return
        if not bool(x.isfinite().all()):
            if x.device.type == "cpu":
                return  # the layer that overflowed has warned
            lost = int((~x.isfinite()).reshape(len(x), -1).any(1).sum())
            fault = f"{lost} of {len(x)} samples are not finite"
        elif bijection.training or inverse == "learned" or self._is_done(bijection, len(x)):
            return
        else:
            few, own = slice(_ROWS), None if context is None else context[:_ROWS]
            fault = _difference(bijection, z[few], x[few], own, inverse)
        if fault:
            fix = "call flow.double()" if x.dtype == torch.float32 else "lower the temperature, or change the weights"
            message = f"Flow.sample: {fault}; {fix}, and measure with flow.roundtrip_error"
            warnings.warn(message, NumericalWarning, stacklevel=_FRAMES)

    def _is_done(self, bijection: Bijection, rows: int) -> bool:
        """Whether enough samples have been compared with these weights; otherwise count ``rows`` more."""
        if self._rows < _ROWS:
            self._parameters = list(bijection.parameters())  # kept, because listing them takes longer than a comparison
        weights = _fingerprint(self._parameters)
        if weights != self._weights:
            self._weights, self._rows = weights, 0
        done, self._rows = self._rows >= _ROWS, self._rows + rows
        return done


def _difference(
    bijection: Bijection, z: Tensor, x: Tensor, context: Tensor | None, inverse: InverseMethod | None
) -> str:
    """Describe by how much samples are not mapped back; empty where they are."""
    unbounded = all(isinstance(of, type(constraints.real)) for of in (bijection.domain, bijection.codomain))
    try:
        if unbounded:
            error = float(relative_error(bijection.encode(x, context), z).max())
        else:
            error = float(bijection.roundtrip_error(x, context, inverse=inverse).max())
    except NotInvertibleError as reason:
        return f"samples cannot be mapped back to latents: {reason}"
    if error <= _TOLERANCE:
        return ""
    what = "map to latents that differ from those they were drawn with" if unbounded else "do not map back"
    return f"samples {what}, by {error:.2g} relative to max(1, |value|)"


def _fingerprint(parameters: list[nn.Parameter]) -> tuple[object, ...]:
    """What changes with the weights: the sum of all version counters, and some values of three parameters."""
    if not parameters:
        return ()
    versions = sum(0 if p.is_inference() else p._version for p in parameters)
    some = (parameters[index].detach().reshape(-1) for index in (0, len(parameters) // 2, -1))
    values = torch.cat([p[:: max(1, (len(p) - 1) // 2)].double() for p in some])
    return (parameters[0].dtype, versions, *values.tolist())
