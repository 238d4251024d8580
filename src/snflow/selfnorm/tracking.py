"""Tracking: the interface of the strategies that keep a learned inverse close to the inverse of its weight."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from snflow.errors import CheckedConstructor, ConfigError, check_count, check_weight
from snflow.numerics.operators.conv import ConvOperator, least_squares_inverse
from snflow.numerics.probes import rademacher
from snflow.selfnorm.gradient import GradientRule, Operators

CONTRACTING = 0.7
"""The residual ‖I − RW‖_F/√D up to which Newton–Schulz steps, which square I − RW, are assumed to contract."""

SLACK = 1.2
"""Factor by which the residual of a least-squares kernel may exceed the residual after its fit, which is nonzero."""

_SAMPLE = 4096
"""Number of entries of a weight that are compared to detect a change; an optimizer step changes almost all entries."""


@dataclass(frozen=True)
class Residual:
    """The norm of E = I − RW, and the growth of its powers.

    Attributes:
        size: estimate of ‖I − RW‖_F / √D, the root mean square of (x − g(f(x)))/σ for white noise x of scale σ.
        growth: ‖E² ν‖ / ‖E ν‖, close to the spectral radius of E if a single direction dominates.
    """

    size: float
    growth: float

    @property
    def contracts(self) -> bool:
        """Whether the powers of E appear to converge to zero, as required by the iterations."""
        return self.size < CONTRACTING and self.growth < CONTRACTING


@dataclass(frozen=True)
class WeightPair:
    """w and r of a layer, without gradients, with the operators W = A(w) and R = A(r) on events of a given shape.

    Example:
        >>> from snflow.numerics.operators.dense import DenseOperator, TransposedDenseOperator
        >>> dense = Operators(DenseOperator(), TransposedDenseOperator())
        >>> pair = WeightPair(2 * torch.eye(3), 0.45 * torch.eye(3), dense, (3,))
        >>> round(pair.residual(probes=2).size, 6)
        0.1
    """

    weight: Tensor
    inverse_weight: Tensor
    operators: Operators
    event_shape: tuple[int, ...]

    def error(self, v: Tensor) -> Tensor:
        """v − R W v, for events v ``(batch, *event)``.

        The order of the factors matters if R is not the exact inverse: I − RW appears in the reconstruction error
        g(f(x)) − x, in the penalty and in the Neumann terms. All residuals in this library are defined in this way.
        """
        return v - self.operators.inverse.product(self.inverse_weight, self.operators.forward.product(self.weight, v))

    def residual(self, probes: int) -> Residual:
        """‖I − RW‖_F/√D = √ E ‖ν − RWν‖²/D from a few Rademacher ν, and the growth of its powers.

        Args:
            probes: the number of ν, drawn from the global generator of torch.

        Returns:
            The estimate, as Python numbers, which requires a device synchronization.
        """
        once = self.error(rademacher(probes, self.event_shape, self.weight))
        twice = self.error(once)
        first, second = torch.stack([once.square().mean(), twice.square().mean()]).tolist()
        return Residual(math.sqrt(first), math.sqrt(second / first) if first > 0 else 0.0)

    def matrices(self) -> tuple[Tensor, Tensor]:
        """The blocks of Wᵀ and Rᵀ, each with shape ``(m, n, n)``, for operators whose inverse is of the same kind."""
        a, g = self.operators.forward, self.operators.inverse
        return a.matrices(self.weight), g.matrices(self.inverse_weight)


class Tracking(nn.Module, metaclass=CheckedConstructor):
    """A strategy that keeps R = A(r) ≈ A(w)⁻¹: abstract base class.

    A strategy is passed to a layer, which makes a copy. It contains its options and its state, which is saved with the
    layer. **To write a strategy**, set ``trains_inverse`` and implement :meth:`gradient_rule`, :meth:`is_due` and
    :meth:`update`.

    Attributes:
        trains_inverse: whether r is a trainable parameter; otherwise it is a buffer.
        probes: number of random vectors used to estimate the residual.
        penalty_weight: the weight λ ≥ 0 of the penalty ‖g(f(x)) − x‖², a scalar.
        updates: number of times :meth:`update` has replaced r, a scalar.
        floor: the residual after the last least-squares fit; zero if r can represent the exact inverse.
    """

    trains_inverse: ClassVar[bool]
    penalty_weight: Tensor
    updates: Tensor
    floor: Tensor

    def __init__(self, *, penalty_weight: float, probes: int) -> None:
        super().__init__()
        check_count(type(self).__name__, "probes", probes)
        self.probes = probes
        self.register_buffer("penalty_weight", torch.tensor(float(penalty_weight)))
        self.register_buffer("floor", torch.tensor(0.0))
        self.register_buffer("updates", torch.tensor(0))

    @abstractmethod
    def gradient_rule(self, closed: bool) -> GradientRule:
        """Return the options of the gradient; ``closed`` is whether r can represent the exact inverse."""

    @abstractmethod
    def is_due(self, weight: Tensor, steps: int) -> bool:
        """Whether :meth:`update` should be called before the current training step.

        Args:
            weight: w, without gradient.
            steps: number of training steps since the last call.
        """

    @abstractmethod
    def update(self, pair: WeightPair) -> Tensor | None:
        """Return a better r, or ``None`` to keep the current one."""

    def update_on_device(self, pair: WeightPair) -> Tensor | None:
        """Return a better r without device synchronization, or ``None`` if this strategy has no such step.

        Args:
            pair: w and r; its event shape is not used.
        """
        return None

    @property
    def moves_penalty_weight(self) -> bool:
        """Whether :meth:`observe` changes λ."""
        return False

    def observe(self, error: Tensor, energy: Tensor) -> None:
        """Record the errors of one forward pass in training.

        Args:
            error: mean of ‖g(f(x)) − x‖² over the batch, a scalar.
            energy: mean of ‖x‖² over the batch, a scalar.
        """

    def best(self, pair: WeightPair) -> Tensor | None:
        """Return the best r for the current w, regardless of cost: the exact inverse, or a least-squares kernel."""
        if pair.operators.inverse.closed:
            return self._accepted(pair, torch.linalg.inv_ex(pair.matrices()[0]).inverse)
        a, g = pair.operators.forward, pair.operators.inverse
        if not (isinstance(a, ConvOperator) and isinstance(g, ConvOperator)):
            raise TypeError(f"expected two convolutions, got {type(a).__name__} and {type(g).__name__}")
        fitted = least_squares_inverse(pair.weight, pair.inverse_weight, a, g, pair.event_shape)
        if not bool(torch.isfinite(fitted).all()):
            return None
        self.floor.fill_(replace(pair, inverse_weight=fitted).residual(self.probes).size)
        return fitted

    def _accepted(self, pair: WeightPair, matrices: Tensor) -> Tensor | None:
        """Convert the matrices Rᵀ to r; ``None`` if w is singular or not finite, which shows in the loss."""
        if not bool(torch.isfinite(matrices).all()):
            return None
        self.floor.zero_()
        return pair.operators.inverse.from_matrices(matrices)

    def _at_floor(self, residual: Residual, bound: float) -> bool:
        """Whether the residual is within the bound, or close to the residual after the last fit."""
        return residual.size <= max(bound, SLACK * float(self.floor))


class DirectTracking(Tracking):
    """R is a buffer, updated by a numerical method when w has changed; w receives the full likelihood gradient.

    Abstract base class of :class:`~snflow.Newton` and :class:`~snflow.Secant`.

    Args:
        tolerance: residual ‖I − RW‖_F/√D up to which R is not updated.
        probes: number of random vectors used to estimate the residual; of :class:`~snflow.Secant` also the
            number of vectors in N if the residual equals the tolerance.
        pull: weight of the penalty in the gradient of w; it keeps f among the maps that a learned inverse can invert.
        neumann_terms: number of terms k ≥ 1 of W⁻ᵀ ≈ Rᵀ Σₖ (I − WᵀRᵀ)ᵏ in the gradient of the log-determinant.
            ``None`` is 1 for a k×k convolution with k > 1, and 0 otherwise.
        neumann_probes: number of random vectors used to estimate these terms.

    Raises:
        ConfigError: an option is out of range.
    """

    trains_inverse = False

    def __init__(
        self,
        *,
        tolerance: float = 0.1,
        probes: int = 8,
        pull: float = 0.0,
        neumann_terms: int | None = None,
        neumann_probes: int = 8,
    ) -> None:
        name = type(self).__name__
        check_weight(name, "pull", pull, fix="use 0 for no penalty")
        super().__init__(penalty_weight=pull, probes=probes)
        check_positive(name, "tolerance", tolerance)
        check_neumann(name, neumann_terms, neumann_probes)
        self.tolerance, self.pull = tolerance, pull
        self.neumann_terms, self.neumann_probes = neumann_terms, neumann_probes
        self._seen: Tensor | None = None
        self.register_load_state_dict_post_hook(_forget_seen)

    def gradient_rule(self, closed: bool) -> GradientRule:
        """Return the full likelihood gradient for w, with that of the penalty if ``pull`` is positive."""
        return GradientRule(
            weight_share=1.0,
            inverse_share=0.0,
            penalized_weight=self.pull > 0,
            penalized_inverse=False,
            neumann_terms=int(not closed) if self.neumann_terms is None else self.neumann_terms,
            neumann_probes=self.neumann_probes,
        )

    def is_due(self, weight: Tensor, steps: int) -> bool:
        """Whether a sample of the entries of w has changed since the last call."""
        flat = weight.flatten()
        sample = flat[:: max(1, len(flat) // _SAMPLE)]
        seen = self._seen
        comparable = seen is not None and seen.dtype == sample.dtype and seen.device == sample.device
        if comparable and torch.equal(seen, sample):  # type: ignore[arg-type]
            return False
        self._seen = sample.clone()
        return True

    def __getstate__(self) -> dict[str, object]:
        """Exclude the sample of w from copies and pickles."""
        return {**self.__dict__, "_seen": None}

    def extra_repr(self) -> str:
        """Show the tolerance, and the pull if it is positive."""
        return f"tolerance={self.tolerance:g}" + (f", pull={self.pull:g}" if self.pull else "")


def _forget_seen(tracking: nn.Module, _: object) -> None:
    if isinstance(tracking, DirectTracking):
        tracking._seen = None


def check_positive(where: str, option: str, value: float) -> None:
    """Raise an error if a number is not positive.

    Raises:
        ConfigError: the number is zero, negative or NaN.
    """
    if not value > 0:
        raise ConfigError(where, expected=f"{option} > 0", got=repr(value))


def check_neumann(where: str, terms: int | None, probes: int) -> None:
    """Raise an error for a negative number of Neumann terms, or for fewer than one probe.

    Raises:
        ConfigError: a number is out of range.
    """
    if terms is not None and terms < 0:
        raise ConfigError(where, expected="neumann_terms ≥ 0, or None", got=repr(terms))
    check_count(where, "neumann_probes", probes)
