"""Element-wise bijections: affine, logit, leaky ReLUs, cumulative distribution functions and learned transformers."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Self, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributions import Distribution, constraints
from torch.distributions.constraints import Constraint

from snflow.bijections.base import Bijection, Shape, check_tensor
from snflow.bijections.domain import Bound, bounds, interval
from snflow.bijections.transformers.spline import RationalQuadraticTransformer
from snflow.bijections.transformers.transformer import TransformedElements, Transformer
from snflow.errors import ConfigError, DataError, check_event_shape
from snflow.numerics.compilation import ROOT_SEARCH
from snflow.numerics.probes import sum_event
from snflow.numerics.root_finding import invert_increasing
from snflow.numerics.transforms import under_transform


@final
class Affine(Bijection):
    """z = (x − shift) / scale, with log|det| = −Σ log|scale|: a fixed normalization, stored with the weights.

    A number applies to every element of events of any shape. A tensor determines the event shape, where a dimension of
    size one matches any size: ``(3, 1, 1)`` means one number per channel.

    Args:
        shift: the point that is mapped to zero, a number or a tensor with shape ``event``, in the units of x.
        scale: a nonzero number or a tensor with shape ``event``, in the units of x.

    Attributes:
        shift: buffer, with the broadcast shape of the two arguments.
        scale: buffer, likewise.

    Raises:
        ConfigError: a scale is zero, a shift or scale is not finite, or the two shapes do not broadcast.

    Example:
        >>> import torch, snflow
        >>> z, log_det = snflow.Affine(1.0, 2.0)(torch.tensor([[3.0, 5.0]]))
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
                expected="shift and scale of broadcastable shapes",
                got=f"{tuple(shifts.shape)} and {tuple(scales.shape)}",
                fix="give both the event shape, or pass a number for one of them",
            ) from error
        self._check_values("a finite shift", shifts, ~shifts.isfinite())
        self._check_values("a finite scale that is not zero", scales, ~scales.isfinite() | (scales == 0))
        if scales.dim() > 0:
            self.event_shape = tuple(None if n == 1 else n for n in scales.shape)
        self.register_buffer("shift", shifts.clone())
        self.register_buffer("scale", scales.clone())

    @classmethod
    def standardizing(cls, data: Tensor, floor: float = 1e-6) -> Self:
        """z = (x − mean) / std, with the moments of each element over the data; constant elements get a scale of one.

        The moments are computed in float64. An element counts as constant if its standard deviation is below ``floor``
        times its largest magnitude: dividing by a smaller number would amplify rounding errors.

        Args:
            data: with shape ``(batch, *event)``; integers are allowed.
            floor: the smallest standard deviation, relative to the largest magnitude.

        Raises:
            DataError: the data have no rows, or contain non-finite values.
            DtypeError: the data are not a tensor.

        Example:
            >>> import torch, snflow
            >>> layer = snflow.Affine.standardizing(torch.tensor([[1.0, 7.0], [5.0, 7.0]]))
            >>> layer.shift.tolist(), layer.scale.tolist()
            ([3.0, 7.0], [2.0, 1.0])
        """
        name = f"{cls.__name__}.standardizing"
        check_tensor(name, data)
        if data.dim() == 0 or data.shape[0] == 0:
            raise DataError(
                name,
                expected="shape (batch, *event) with at least one row",
                got=f"{tuple(data.shape)}",
                fix="pass at least one row",
            )
        rows = data.double()
        finite = rows.flatten(1).isfinite().all(1) if rows.dim() > 1 else rows.isfinite()
        if not bool(finite.all()):
            raise DataError(
                name,
                expected="finite data",
                got=f"{int((~finite).sum())} rows with NaN or infinity, the first is {int((~finite).int().argmax())}",
                fix="remove or correct these rows",
            )
        # scaled by the largest magnitude, so that squares neither overflow nor underflow; powers of two are exact
        exponent = rows.abs().amax(0).frexp().exponent.double() - 1
        unit = exponent.exp2()
        std = (rows / unit).std(0, correction=0)
        mean = unit * (rows / unit).mean(0)
        scale = torch.where(std > floor, unit * std, 1.0)
        dtype = data.dtype if data.is_floating_point() else torch.get_default_dtype()
        return cls(mean.to(dtype), scale.to(dtype))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return (x - self.shift) / self.scale, -self._log_scale(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z * self.scale + self.shift, self._log_scale(z)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return z * self.scale + self.shift

    def _preimage(self, latents: Constraint) -> Constraint:
        ends = bounds(latents)
        return super()._preimage(latents) if ends is None else _mapped(*ends, lambda z: z * self.scale + self.shift)

    def _image(self, data: Constraint) -> Constraint:
        ends = bounds(data)
        return super()._image(data) if ends is None else _mapped(*ends, lambda x: (x - self.shift) / self.scale)

    def _log_scale(self, x: Tensor) -> Tensor:
        total = sum_event(self.scale.abs().log().expand(1, *x.shape[1:]))
        return total.expand(x.shape[0])

    def _check_values(self, expected: str, values: Tensor, wrong: Tensor) -> None:
        if bool(wrong.any()):
            raise ConfigError(
                self.label,
                expected=expected,
                got=f"{values[wrong][0].item()} in {int(wrong.sum())} of {values.numel()} elements",
                fix="use Affine.standardizing(data), which handles constant features",
            )

    def extra_repr(self) -> str:
        """Show the shape."""
        return f"shape={tuple(self.scale.shape)}"


def _mapped(lower: Bound, upper: Bound, monotone: Callable[[Tensor], Tensor]) -> Constraint:
    """The image of an interval under a monotone map of each element."""
    first, second = monotone(torch.as_tensor(lower)), monotone(torch.as_tensor(upper))
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    return interval(low, high) if low.dim() else interval(low.item(), high.item())


def _as_float(value: Tensor | float) -> Tensor:
    tensor = torch.as_tensor(value).detach()
    return tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())


@final
class Scaling(Bijection):
    """z = x ⊙ exp(s), log|det| = Σ s, with a learned s for each element (Dinh et al. 2015, NICE, section 3.3).

    Args:
        event_shape: the shape of one event of x and z; an int D for vectors ``(D,)``.

    Example:
        >>> import torch, snflow
        >>> snflow.Scaling((2,))(torch.ones(1, 2))[0].tolist()
        [[1.0, 1.0]]
    """

    def __init__(self, event_shape: int | Shape) -> None:
        super().__init__()
        shape = check_event_shape("Scaling", event_shape)
        self.event_shape = shape
        self.log_scale = nn.Parameter(torch.zeros(shape))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return x * self.log_scale.exp(), self.log_scale.sum().expand(x.shape[0])

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return z * (-self.log_scale).exp(), -self.log_scale.sum().expand(z.shape[0])


@final
class Logit(Bijection):
    """z = logit(p), p = α + (1 − 2α)x, with log|det| = Σ [log(1 − 2α) − log p − log(1 − p)] (Dinh et al. 2017, §4.1).

    Accepts events of any shape with values in [0, 1]; z has the shape of x and is finite at both ends, since α > 0.
    Outside [0, 1] the density is zero: the log-determinant of the row is −inf, x is clamped to [0, 1], and gradients
    remain finite. NaN is preserved.

    The values of the inverse lie in [0, 1]: a latent beyond ±logit(1 − α) is mapped to the nearest end.

    Args:
        alpha: α, the margin at both ends, in (0, 0.5).

    Raises:
        ConfigError: α is not in (0, 0.5).

    Example:
        >>> import torch, snflow
        >>> z, log_det = snflow.Logit(alpha=0.25)(torch.tensor([[0.5], [2.0]]))
        >>> z, log_det
        (tensor([[0.0000], [1.0986]]), tensor([0.6931, -inf]))
    """

    domain = constraints.unit_interval

    def __init__(self, alpha: float = 1e-6) -> None:
        super().__init__()
        if not 0 < alpha < 0.5:
            raise ConfigError(self.label, expected="0 < alpha < 0.5", got=f"{alpha}", fix="use 1e-6, as in the paper")
        self.alpha = alpha

    @property
    def codomain(self) -> Constraint:
        """±logit(1 − α)."""
        end = math.log1p(-self.alpha) - math.log(self.alpha)
        return interval(-end, end)

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        inner = x.clamp(0, 1)
        size = math.prod(x.shape[1:])
        outside = (inner != x).reshape(len(x), size).any(1)
        low, high = x.new_full((), self.alpha), x.new_full((), 1 - self.alpha)
        # interpolated separately: 1 − p would suffer from cancellation for p close to one
        log_p, log_q = torch.lerp(low, high, inner).log(), torch.lerp(high, low, inner).log()
        log_det = size * math.log1p(-2 * self.alpha) - sum_event(log_p + log_q)
        # added rather than assigned, to preserve NaN
        return log_p - log_q, log_det + torch.where(outside, -math.inf, 0.0).to(x.dtype)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x = ((torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha)).clamp(0, 1)
        log_slope = F.logsigmoid(z) + F.logsigmoid(-z) - math.log1p(-2 * self.alpha)
        return x, sum_event(log_slope)

    def extra_repr(self) -> str:
        """Show α."""
        return f"alpha={self.alpha}"


@final
class LeakyReLU(Bijection):
    """z = x where x ≥ 0, αx where x < 0, with log|det| = (number of negative elements) · log α.

    Accepts events of any shape; z has the shape of x.

    Args:
        alpha: α > 0, the slope for negative x.

    Raises:
        ConfigError: the slope is not a positive number.

    Example:
        >>> import torch, snflow
        >>> z, log_det = snflow.LeakyReLU(0.5)(torch.tensor([[-2.0, 3.0]]))
        >>> z, log_det
        (tensor([[-1., 3.]]), tensor([-0.6931]))
    """

    def __init__(self, alpha: float = 0.3) -> None:
        super().__init__()
        if not 0 < alpha < math.inf:
            raise ConfigError(self.label, expected="alpha > 0", got=f"{alpha}", fix="use 0.3")
        self.alpha = alpha

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._scale(x, self.alpha)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._scale(z, 1 / self.alpha)

    @staticmethod
    def _scale(x: Tensor, slope: float) -> tuple[Tensor, Tensor]:
        negative = x < 0
        logs = torch.where(negative, math.log(slope), 0.0).to(x.dtype)
        return torch.where(negative, slope * x, x), sum_event(logs)

    def extra_repr(self) -> str:
        """Show the slope."""
        return f"alpha={self.alpha}"


@final
class SmoothLeakyReLU(Bijection):
    """z = αx + (1 − α) softplus(x), with log|det| = Σ log(α + (1 − α) sigmoid(x)) (Gresele et al. 2020, §5).

    Accepts events of any shape; z has the shape of x. The slope increases from α to one. The inverse uses Newton's
    method, started to the right of the root: it converges monotonically because the map is convex. Its gradient is
    1/f'(x).

    Args:
        alpha: α, the slope at −∞, in (0, 1].

    Raises:
        ConfigError: the slope is not in (0, 1].

    Example:
        >>> import torch, snflow
        >>> layer, x = snflow.SmoothLeakyReLU(), torch.tensor([[-2.0, 0.0, 3.0]])
        >>> z, log_det = layer(x)
        >>> torch.allclose(layer.decode(z), x, atol=1e-6)
        True
    """

    uncompiled = ROOT_SEARCH

    def __init__(self, alpha: float = 0.3) -> None:
        super().__init__()
        if not 0 < alpha <= 1:
            raise ConfigError(self.label, expected="0 < alpha ≤ 1", got=f"{alpha}", fix="use 0.3, as in the paper")
        self.alpha = alpha

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, slope = self._value_and_slope(x)
        return z, sum_event(slope.log())

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        # max(x, αx) ≤ f(x) ≤ max(x, αx) + (1 − α) log 2, the leaky ReLU, brackets the root
        lowest = z - (1 - self.alpha) * math.log(2)
        lower, upper = (torch.where(bound < 0, bound / self.alpha, bound).detach() for bound in (lowest, z))
        root = invert_increasing(self._value_and_slope, z, lower, upper, start=upper, where=f"{self.label} inverse")
        # two additional Newton steps provide the derivatives; infinities are returned unchanged, without derivatives
        x = root
        for _ in range(2):
            value, slope = self._value_and_slope(x)
            x = x - torch.where(root.isinf(), 0.0, (value - z) / slope)
        return x, -sum_event(self._value_and_slope(x)[1].log())

    def _value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        # for x > 40, softplus(x) rounds to x in float64; with torch's default threshold of 20 the error is 2e-9
        value = torch.add(self.alpha * x, F.softplus(x, threshold=40.0), alpha=1 - self.alpha)
        return value, torch.add(x.new_full((), self.alpha), torch.sigmoid(x), alpha=1 - self.alpha)

    def extra_repr(self) -> str:
        """Show the slope."""
        return f"alpha={self.alpha}"


@final
class CDF(Bijection):
    """z = F(x), log|det| = Σ log F'(x): the probability integral transform; its inverse is inverse transform sampling.

    Accepts events of any shape; z has the shape of x, with values in [0, 1]. With a uniform base distribution, the
    density of the flow is F'. Followed by other layers, or by the quantile function of a normal distribution (the
    :class:`~snflow.Inverse` of another CDF), the layer gives a copula.

    Args:
        distribution: a univariate distribution with ``cdf`` and ``icdf``, such as ``torch.distributions.Normal``,
            ``Laplace``, ``Cauchy``, ``Uniform``, ``Exponential`` or ``Gumbel``: an instance, or the class and its
            parameters.
        parameters: parameters of the class, numbers or tensors that broadcast to an event; stored as buffers.

    Raises:
        ConfigError: the distribution has no ``cdf`` or ``icdf``, or does not accept the parameters.

    References:
        Devroye (1986), Non-uniform random variate generation, section II.2; Dinh's primer on normalizing flows, for the
        CDF as a flow.

    Example:
        >>> import torch, snflow
        >>> z, log_det = snflow.CDF(torch.distributions.Normal, loc=0.0, scale=1.0)(torch.zeros(1, 1))
        >>> z.item(), round(log_det.item(), 4)
        (0.5, -0.9189)
        >>> snflow.CDF(torch.distributions.Laplace(0.0, 2.0))
        CDF(Laplace(loc, scale))
    """

    codomain = constraints.unit_interval

    def __init__(self, distribution: Distribution | type[Distribution], **parameters: Tensor | float) -> None:
        super().__init__()
        if isinstance(distribution, Distribution) and not parameters:
            parameters = {name: getattr(distribution, name) for name in distribution.arg_constraints}
            distribution = type(distribution)
        if not (isinstance(distribution, type) and issubclass(distribution, Distribution)):
            raise ConfigError(
                "CDF",
                expected="an instance of a distribution, or a class of torch.distributions with its parameters",
                got=f"{distribution!r} and {list(parameters)}",
                fix="use CDF(torch.distributions.Normal, loc=0.0, scale=1.0)",
            )
        self.kind = distribution
        self.names = tuple(parameters)
        for name, value in parameters.items():
            tensor = torch.as_tensor(value).detach()
            floating = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
            self.register_buffer(f"parameter_{name}", floating.clone())
        try:
            half = torch.full((), 0.5, dtype=self._floating_type())
            self._distribution().cdf(self._distribution().icdf(half))
        except (NotImplementedError, TypeError, ValueError) as error:
            raise ConfigError(
                "CDF",
                expected="a univariate distribution with cdf and icdf, and its parameters",
                got=f"{distribution.__name__}({', '.join(self.names)}): {str(error) or 'not implemented'}",
                fix="use Normal, Laplace, Cauchy, Uniform, Exponential or Gumbel of torch.distributions",
            ) from error

    @property
    def domain(self) -> Constraint:
        """The support of the distribution."""
        return self._distribution().support or constraints.real

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        distribution = self._distribution()
        return distribution.cdf(x), sum_event(distribution.log_prob(x))

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        distribution = self._distribution()
        x = distribution.icdf(z)
        return x, -sum_event(distribution.log_prob(x))

    def _distribution(self) -> Distribution:
        given = {name: getattr(self, f"parameter_{name}") for name in self.names}
        return self.kind(**given, validate_args=False)

    def _floating_type(self) -> torch.dtype:
        return next((b.dtype for b in self.buffers()), torch.get_default_dtype())

    def extra_repr(self) -> str:
        """Show the distribution."""
        return f"{self.kind.__name__}({', '.join(self.names)})"


@final
class Elementwise(TransformedElements):
    """zᵢ = τ(xᵢ; hᵢ), log|det| = Σ log dzᵢ/dxᵢ, with learned hᵢ: any transformer as a layer.

    In ``eval()`` and without gradients, quantities that depend on h only, such as the knots of a spline, are cached
    until h changes.

    Args:
        transformer: τ.
        event_shape: the shape of one event of x and z; an int D for vectors ``(D,)``.
        initial: the initial h, with shape ``(P, *event)``; zeros by default.

    Attributes:
        parameters_of_elements: h, with shape ``(P, *event)``.

    Raises:
        ConfigError: a size below one, or initial parameters with the wrong shape.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.Elementwise(snflow.AffineTransformer(), (2,))
        >>> layer(torch.ones(1, 2))[0]
        tensor([[1., 1.]], grad_fn=<AddcmulBackward0>)
    """

    def __init__(self, transformer: Transformer, event_shape: int | Shape, *, initial: Tensor | None = None) -> None:
        super().__init__()
        self.event_shape = check_event_shape("Elementwise", event_shape)
        self.transformer = transformer
        shape = (transformer.parameters_per_element, *self.event_shape)
        if initial is not None and tuple(initial.shape) != shape:
            raise ConfigError("Elementwise", expected=f"initial of shape {shape}", got=f"{tuple(initial.shape)}")
        self.parameters_of_elements = nn.Parameter(torch.zeros(shape) if initial is None else initial.detach().clone())
        self._kept: tuple[Tensor, Any] | None = None

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        z, log_slope = self.transformer(x, self._prepared())
        return z, sum_event(log_slope)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        x, log_slope = self.transformer.inverse(z, self._prepared())
        return x, sum_event(log_slope)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        return self.transformer.decode(z, self._prepared())

    def _prepared(self) -> Any:
        """The argument of τ in place of h; without gradients, the cached one as long as h is unchanged."""
        h = self.parameters_of_elements.unsqueeze(1)
        if torch.is_grad_enabled() or self.training or torch.compiler.is_compiling() or under_transform():
            return self.transformer.prepare(h)
        if self._kept is not None:
            seen, prepared = self._kept
            # values, not version counters, which neither an edit of `.data` nor a fused optimizer's step increments
            if seen.dtype == h.dtype and seen.device == h.device and torch.equal(seen, h):
                return prepared
        prepared = self.transformer.prepare(h)
        if prepared is not h:
            self._kept = h.clone(), prepared
        return prepared

    def __getstate__(self) -> dict[str, object]:
        """Exclude the cache from copies and pickles: it is recomputed on demand."""
        return {**self.__dict__, "_kept": None}

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{tuple(self.event_shape or ())}, {math.prod(self.parameters_of_elements.shape)} parameters"


def rational_quadratic_spline(
    event_shape: int | Shape,
    *,
    bins: int = 5,
    tail_bound: float = 10.0,
    min_bin_width: float = 1e-3,
    min_bin_height: float = 1e-3,
    min_derivative: float = 1e-3,
) -> Elementwise:
    """z = s(x), log|det| = Σ log s'(x): a learned monotone spline for each element of the event (Durkan et al. 2019).

    An :class:`Elementwise` layer with a :class:`~snflow.RationalQuadraticTransformer`. Each element has its own spline
    with ``bins`` rational-quadratic pieces on [−tail_bound, tail_bound], and the identity outside. Parameters are
    initialized from N(0, 0.01²), close to the identity.

    Args:
        event_shape: the shape of one event of x and z; an int D for vectors ``(D,)``.
        bins: the number of pieces.
        tail_bound: half the side length of the box, in the units of x.
        min_bin_width: the smallest width of a bin, as a fraction of the width of the box.
        min_bin_height: the smallest height of a bin, as a fraction of the height of the box.
        min_derivative: the smallest slope at a knot.

    Returns:
        A layer for x and z ``(batch, *event)``, with log_det ``(batch,)`` in nats.

    Raises:
        ConfigError: fewer than one bin, an empty box, or minimum bin sizes that do not fit into the box.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.rational_quadratic_spline((1, 8, 8))
        >>> z, log_det = layer(torch.full((4, 1, 8, 8), 12.0))  # outside the box: the identity
        >>> z.unique().tolist(), log_det.tolist()
        ([12.0], [0.0, 0.0, 0.0, 0.0])
    """
    shape = check_event_shape("rational_quadratic_spline", event_shape)
    transformer = RationalQuadraticTransformer(
        bins,
        tail_bound=tail_bound,
        min_bin_width=min_bin_width,
        min_bin_height=min_bin_height,
        min_derivative=min_derivative,
    )
    # drawn in the order widths, heights, slopes
    initial = torch.cat([0.01 * torch.randn(*shape, count) for count in (bins, bins, bins - 1)], -1)
    return Elementwise(transformer, shape, initial=initial.movedim(-1, 0).contiguous())
