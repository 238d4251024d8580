"""Domains and codomains: intervals of elements, and sets of events given by a bijection."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, final

import torch
from torch import Size, Tensor
from torch.distributions import constraints
from torch.distributions.constraints import Constraint

if TYPE_CHECKING:
    from snflow.bijections.base import Bijection

Bound = float | Tensor
"""An end of the interval of every element: a number, or a tensor that broadcasts to an event."""

_ONE = Size()
"""The batch shape of a single distribution or transform."""


def bounds(of: Constraint) -> tuple[Bound, Bound] | None:
    """The ends of the interval in which every element lies; ``None`` for any other set.

    Open and closed ends are not distinguished.

    Example:
        >>> bounds(constraints.real), bounds(constraints.unit_interval), bounds(constraints.simplex)
        ((-inf, inf), (0.0, 1.0), None)
    """
    if isinstance(of, type(constraints.real)):
        return -math.inf, math.inf
    if of.is_discrete or of.event_dim or not (hasattr(of, "lower_bound") or hasattr(of, "upper_bound")):
        return None
    return getattr(of, "lower_bound", -math.inf), getattr(of, "upper_bound", math.inf)


def interval(lower: Bound, upper: Bound) -> Constraint:
    """[lower, upper] for every element, in a form that ``torch.distributions.biject_to`` accepts.

    Example:
        >>> interval(0.0, math.inf), interval(-math.inf, math.inf), interval(0.0, 2.0)
        (GreaterThanEq(lower_bound=0.0), Real(), Interval(lower_bound=0.0, upper_bound=2.0))
    """
    no_lower, no_upper = (isinstance(end, float) and math.isinf(end) for end in (lower, upper))
    if no_lower:
        return constraints.real if no_upper else constraints.less_than(upper)
    return constraints.greater_than_eq(lower) if no_upper else constraints.interval(lower, upper)


def has_equal_bounds(of: Constraint) -> bool:
    """Whether all elements lie in the same interval, which a layer that only moves them preserves."""
    return all(isinstance(end, float | int) for end in bounds(of) or (None,))


def beside(first: Constraint, dim: int, sizes: Sequence[int]) -> Constraint:
    """A set for the first of two parts of an event, and real numbers for the second.

    Args:
        first: the set of elements for the first part.
        dim: the negative dimension along which the parts are joined.
        sizes: their sizes along it.
    """
    if isinstance(first, type(constraints.real)):
        return first
    if first.event_dim:  # of one part, which no constraint of torch expresses: checking it raises an error
        return constraints.dependent
    return constraints.cat([first, constraints.real], dim, sizes)


def contains(outer: Constraint, inner: Constraint) -> bool:
    """Whether every point of one set is known to lie in another.

    Example:
        >>> contains(constraints.real, constraints.simplex), contains(constraints.positive, constraints.real)
        (True, False)
    """
    if isinstance(outer, type(constraints.real)):
        return True
    large, small = bounds(outer), bounds(inner)
    if large is None or small is None:
        return False
    lower, upper = torch.as_tensor(large[0]) <= small[0], torch.as_tensor(large[1]) >= small[1]
    return bool(lower.all()) and bool(upper.all())


@final
class Preimage(Constraint):
    """{x ∈ dom f : f(x) ∈ S}, or {z ∈ cod f : f⁻¹(z) ∈ S}: a set of events that is checked by evaluating f.

    Args:
        bijection: f.
        target: S.
        backwards: whether the set is one of latents z.
        event_dim: the number of dimensions of one event; that of the bijection's ``event_shape`` by default.
        context: the values on which f is conditioned, with shape ``(*batch_shape, *context_shape)``.
        batch_shape: the dimensions of the context before its own shape.
    """

    def __init__(
        self,
        bijection: Bijection,
        target: Constraint,
        *,
        backwards: bool = False,
        event_dim: int | None = None,
        context: Tensor | None = None,
        batch_shape: Size = _ONE,
    ) -> None:
        self.bijection, self.target, self.backwards = bijection, target, backwards
        self.context, self.batch_shape = context, batch_shape
        self.event_dim = len(bijection.event_shape or (None,)) if event_dim is None else event_dim

    def __repr__(self) -> str:
        """Show the bijection and the target."""
        return f"{'Image' if self.backwards else 'Preimage'}({self.bijection.label}, {self.target})"

    def check(self, value: Tensor) -> Tensor:
        """Whether each event of ``(*batch, *event)`` lies in the set, with shape ``batch``."""
        split = value.dim() - self.event_dim
        lead, event, context = torch.broadcast_shapes(value.shape[:split], self.batch_shape), value.shape[split:], None
        if self.context is not None:
            own = self.context.shape[len(self.batch_shape) :]
            context = self.context.expand(*lead, *own).reshape(lead.numel(), *own)
        rows = value.expand(*lead, *event).reshape(lead.numel(), *event)
        return self._holds(rows, context).reshape(lead)

    def _holds(self, rows: Tensor, context: Tensor | None) -> Tensor:
        layer, own = self.bijection, context if self.bijection.context_shape is not None else None
        defined = layer.codomain if self.backwards else layer.domain
        with torch.no_grad():
            images = layer.decode(rows, own) if self.backwards else layer.encode(rows, own)
        return _rows_in(defined, rows, context) & _rows_in(self.target, images, context)


@final
class Mapped(Constraint):
    """{x : f(x) ∈ S} for a map f of each element: a set of elements.

    Args:
        function: f, which keeps the shape.
        target: S, a set of elements.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], target: Constraint) -> None:
        self.function, self.target = function, target

    def __repr__(self) -> str:
        """Show the target."""
        return f"Mapped({self.target})"

    def check(self, value: Tensor) -> Tensor:
        """Whether each element lies in the set, with the shape of ``value``."""
        inside: Tensor = self.target.check(self.function(value))
        return inside


def _rows_in(of: Constraint, rows: Tensor, context: Tensor | None) -> Tensor:
    """Whether each row ``(batch, *event)`` lies in a set of elements or of events, with shape ``(batch,)``."""
    if isinstance(of, Preimage):
        return of._holds(rows, context)
    inside: Tensor = of.check(rows)
    return inside.reshape(len(rows), -1).all(1) if len(rows) else inside.new_ones(0, dtype=torch.bool)


def of_events(
    elements: Constraint, event_dim: int, context: Tensor | None = None, batch_shape: Size = _ONE
) -> Constraint:
    """A set of elements or of events as one of events with a number of dimensions.

    Args:
        elements: the domain or codomain of a bijection.
        event_dim: the number of dimensions of one event.
        context: the values on which the bijection is conditioned, with shape ``(*batch_shape, *context_shape)``.
        batch_shape: the dimensions of the context before its own shape.

    Example:
        >>> of_events(constraints.unit_interval, 1).check(torch.tensor([[0.5, 0.5], [0.5, 1.5]]))
        tensor([ True, False])
    """
    if isinstance(elements, Preimage):
        return Preimage(
            elements.bijection,
            elements.target,
            backwards=elements.backwards,
            event_dim=event_dim,
            context=context,
            batch_shape=batch_shape,
        )
    return constraints.independent(elements, event_dim)
