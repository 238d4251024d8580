"""Fixed shift and scale."""

from __future__ import annotations

from typing import Self, final

import torch
from torch import Tensor

from snflow.bijections.base import Bijection
from snflow.errors import ConfigError, DataError
from snflow.numerics.events import sum_event


@final
class Affine(Bijection):
    """z = (x − shift) / scale, with log|det| = −Σ log|scale|: a fixed normalization, saved with the weights.

    A number applies to every element of events of any shape. A tensor fixes the event shape, in which a dimension of
    size one stands for any size: ``(3, 1, 1)`` is one number a channel.

    Args:
        shift: what maps to zero, a number or a tensor with shape ``event``, in the units of x.
        scale: what counts as one, a number or a tensor with shape ``event``, in the units of x; not zero.

    Attributes:
        shift: buffer, with the shape that the two arguments have together.
        scale: buffer, likewise.

    Raises:
        ConfigError: a scale is zero, a number is not finite, or the two shapes do not fit.

    Example:
        >>> import torch
        >>> from snflow.bijections import Affine
        >>> z, log_det = Affine(1.0, 2.0)(torch.tensor([[3.0, 5.0]]))
        >>> z, log_det
        (tensor([[1., 2.]]), tensor([-1.3863]))
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, shift: Tensor | float, scale: Tensor | float) -> None:
        super().__init__()
        shifts, scales = _as_float(shift), _as_float(scale)
        try:
            shifts, scales = torch.broadcast_tensors(shifts, scales)
        except RuntimeError as error:
            raise ConfigError(
                self.label,
                expected="shift and scale of one shape",
                got=f"{tuple(shifts.shape)} and {tuple(scales.shape)}",
                fix="give both the event's shape, or make one a number",
            ) from error
        self._check_values("a finite shift", shifts, ~shifts.isfinite())
        self._check_values("a finite scale that is not zero", scales, ~scales.isfinite() | (scales == 0))
        if scales.dim() > 0:
            self.event_shape = tuple(None if n == 1 else n for n in scales.shape)
        self.register_buffer("shift", shifts.clone())
        self.register_buffer("scale", scales.clone())

    @classmethod
    def standardizing(cls, data: Tensor, floor: float = 1e-6) -> Self:
        """z = (x − mean) / deviation of each element over a sample; elements that do not vary keep the scale one.

        The moments are summed in float64. An element counts as constant when its deviation is below ``floor`` times its
        largest magnitude: dividing by that would blow up rounding errors.

        Args:
            data: with shape ``(batch, *event)``; integers are taken as numbers.
            floor: the smallest deviation, relative to the largest magnitude.

        Raises:
            DataError: there are no rows, or some are not finite.

        Example:
            >>> import torch
            >>> from snflow.bijections import Affine
            >>> layer = Affine.standardizing(torch.tensor([[1.0, 7.0], [5.0, 7.0]]))
            >>> layer.shift.tolist(), layer.scale.tolist()
            ([3.0, 7.0], [2.0, 1.0])
        """
        name = f"{cls.__name__}.standardizing"
        if data.dim() == 0 or data.shape[0] == 0:
            raise DataError(
                name, expected="shape (batch, *event) with a row at least", got=f"{tuple(data.shape)}", fix="pass data"
            )
        rows = data.double()
        finite = rows.flatten(1).isfinite().all(1) if rows.dim() > 1 else rows.isfinite()
        if not bool(finite.all()):
            raise DataError(
                name,
                expected="finite data",
                got=f"{int((~finite).sum())} rows with NaN or infinity, the first is {int((~finite).int().argmax())}",
                fix="drop or repair these rows",
            )
        # in units near the largest magnitude no square overflows or vanishes; a power of two costs no rounding
        exponent = rows.abs().amax(0).frexp().exponent.double() - 1
        unit = exponent.exp2()
        deviation = (rows / unit).std(0, correction=0)
        mean = unit * (rows / unit).mean(0)
        scale = torch.where(deviation > floor, unit * deviation, 1.0)
        dtype = data.dtype if data.is_floating_point() else torch.get_default_dtype()
        return cls(mean.to(dtype), scale.to(dtype))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (x - self.shift) / self.scale, -self._log_scale(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z * self.scale + self.shift, self._log_scale(z)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return z * self.scale + self.shift

    def _log_scale(self, x: Tensor) -> Tensor:
        total = sum_event(self.scale.abs().log().expand(1, *x.shape[1:]))
        return total.expand(x.shape[0])

    def _check_values(self, expected: str, values: Tensor, wrong: Tensor) -> None:
        if bool(wrong.any()):
            raise ConfigError(
                self.label,
                expected=expected,
                got=f"{values[wrong][0].item()} in {int(wrong.sum())} of {values.numel()} places",
                fix="use Affine.standardizing(data), which takes care of constant features",
            )

    def extra_repr(self) -> str:
        """Show the shape."""
        return f"shape={tuple(self.scale.shape)}"


def _as_float(value: Tensor | float) -> Tensor:
    tensor = torch.as_tensor(value).detach()
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
