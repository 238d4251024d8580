"""Activation normalization and invertible batch normalization."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, distributed, nn

from snflow.bijections.base import Bijection
from snflow.errors import ConfigError, NotInvertibleError, check_count
from snflow.numerics.compilation import FIRST_BATCH, Reasons
from snflow.numerics.probes import sum_event
from snflow.numerics.transforms import is_traced, refuse_transforms

CONSTANT = 1e-6
"""Standard deviation, relative to |mean|, up to which a channel counts as constant: float32 rounding noise."""


@final
class ActNorm(Bijection):
    """z = exp(s) ⊙ (x + b), log|det| = P · Σ_c s_c, with one s and one b per channel and P pixels.

    The first training batch sets b and s such that each channel has mean zero and standard deviation one; afterwards
    both are ordinary parameters. Initialization takes place only once: never in ``eval()``, not after a
    ``load_state_dict`` of an initialized layer, and not from a batch with non-finite values or with fewer than two
    values per channel. Until then the layer is the identity. A channel that is constant in the first batch is centered
    but not scaled. Under ``torch.distributed`` the moments are computed over all processes.

    Args:
        channels: C of images ``(C, height, width)``; or the number of features of vectors.
        vectors: whether the events are vectors ``(C,)``.

    Shapes:
        x, z: ``(batch, C, height, width)`` or ``(batch, C)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one channel, or a first batch under a transform of ``torch.func``.

    References:
        Kingma & Dhariwal (2018), Glow: generative flow with invertible 1×1 convolutions, section 3.1.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.ActNorm(3)
        >>> z, log_det = layer(5 + 2 * torch.randn(50, 3, 4, 4))
        >>> torch.allclose(z.mean((0, 2, 3)), torch.zeros(3))
        True
    """

    initialized: Tensor

    def __init__(self, channels: int, *, vectors: bool = False) -> None:
        super().__init__()
        check_count("ActNorm", "channels", channels)
        self.event_shape = (channels,) if vectors else (channels, None, None)
        self.log_scale = nn.Parameter(torch.zeros(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("initialized", torch.tensor(False))
        # a Python copy of the buffer, so that a step does not synchronize with the device; None after a load
        self._is_initialized: bool | None = False
        self.register_load_state_dict_post_hook(_forget)

    @property
    def uncompiled(self) -> Reasons:
        """The direction that initializes, until it is known that this has happened."""
        return FIRST_BATCH if self.training and not self._is_initialized else Reasons()

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.training and not self._done():
            refuse_transforms("ActNorm", "pass a first batch through the flow in train(), outside the transform")
            self._initialize(x.detach())
        scale, shift = self._columns(x)
        return scale * (x + shift), self._log_det(x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._decode(z, context), -self._log_det(z)

    def _decode(self, z: Tensor, context: Tensor | None) -> Tensor:
        scale, shift = self._columns(z)
        return z / scale - shift

    def _columns(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size = (-1, *[1] * (x.dim() - 2))
        return self.log_scale.exp().view(size), self.bias.view(size)

    def _log_det(self, x: Tensor) -> Tensor:
        return (math.prod(x.shape[2:]) * self.log_scale.sum()).expand(x.shape[0])

    def _done(self) -> bool:
        if self._is_initialized is None:
            if is_traced(self.initialized):
                return True
            self._is_initialized = bool(self.initialized)
        return self._is_initialized

    @torch.no_grad()
    def _initialize(self, x: Tensor) -> None:
        """Set b and s from the moments of a batch, computed in float64."""
        rows = x.double().movedim(1, 0).flatten(1)
        sums = torch.stack([rows.sum(1), rows.square().sum(1), rows.new_full((len(rows),), rows.shape[1])])
        if distributed.is_available() and distributed.is_initialized():
            distributed.all_reduce(sums)
        count = sums[2].clamp_min(1)
        mean = sums[0] / count
        std = (sums[1] / count - mean.square()).clamp_min(0).sqrt()
        if not bool((torch.isfinite(mean) & torch.isfinite(std) & (sums[2] > 1)).all()):
            return
        # scaling a constant channel would greatly amplify its noise in the next batch
        std = torch.where(std <= CONSTANT * mean.abs(), 1.0, std)
        self.bias.copy_(-mean)
        self.log_scale.copy_(-std.log())
        self.initialized.fill_(True)
        self._is_initialized = True

    def extra_repr(self) -> str:
        """Show the number of channels."""
        return str(len(self.bias))


def _forget(layer: nn.Module, _: object) -> None:
    if isinstance(layer, ActNorm):
        layer._is_initialized = None


@final
class BatchNorm(Bijection):
    """z = γ (x − μ)/√(v + ε) + β, log|det| = HW Σ (log γ − ½ log(v + ε)), per feature or per channel.

    In ``train()`` μ and v are the moments of the batch, gradients flow through them, and the running averages are
    updated; the rows of a batch depend on each other. In ``eval()`` μ and v are the running averages. The inverse
    exists in ``eval()`` only: in ``train()`` it would have to know the moments of the batch that it is to find.

    Args:
        features: D, the number of features, or of channels of images.
        image: whether the events are images.
        momentum: weight of the current batch in the running averages.
        eps: ε.

    Shapes:
        x, z: ``(batch, D)`` or ``(batch, D, height, width)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature, a momentum outside (0, 1], or ε ≤ 0.
        NotInvertibleError: the inverse is called in ``train()``.

    References:
        Dinh et al. (2017), Density estimation using Real NVP, section 3.7 and appendix E; Papamakarios et al. (2017).

    Example:
        >>> import torch, snflow
        >>> z, _ = snflow.BatchNorm(2)(torch.tensor([[0.0, 5.0], [2.0, 9.0]]))
        >>> z.mean(0).abs().max().item() < 1e-6
        True
    """

    running_mean: Tensor
    running_variance: Tensor

    def __init__(self, features: int, *, image: bool = False, momentum: float = 0.1, eps: float = 1e-5) -> None:
        super().__init__()
        if features < 1 or not 0 < momentum <= 1 or not eps > 0:
            raise ConfigError(
                "BatchNorm",
                expected="features ≥ 1, 0 < momentum ≤ 1 and eps > 0",
                got=f"{features}, {momentum} and {eps}",
            )
        self.event_shape = (features, None, None) if image else (features,)
        self.momentum, self.eps = momentum, eps
        self.log_scale = nn.Parameter(torch.zeros(features))
        self.shift = nn.Parameter(torch.zeros(features))
        self.register_buffer("running_mean", torch.zeros(features))
        self.register_buffer("running_variance", torch.ones(features))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, variance = self.running_mean, self.running_variance
        if self.training and x.shape[0] > 1:
            dims = [0, *range(2, x.dim())]
            mean, variance = x.mean(dims), x.var(dims, correction=0)
            with torch.no_grad():
                self.running_mean.lerp_(mean, self.momentum)
                self.running_variance.lerp_(variance, self.momentum)
        log_factor = self.log_scale - 0.5 * (variance + self.eps).log()
        z = (x - _like(mean, x)) * _like(log_factor.exp(), x) + _like(self.shift, x)
        return z, self._log_det(log_factor, x)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        if self.training:
            raise NotInvertibleError(
                "BatchNorm",
                expected="eval(), in which both directions use the running averages",
                got="an inverse in train(), where the forward direction uses the moments of the batch",
                fix="call flow.eval() first",
            )
        log_factor = self.log_scale - 0.5 * (self.running_variance + self.eps).log()
        x = (z - _like(self.shift, z)) * _like((-log_factor).exp(), z) + _like(self.running_mean, z)
        return x, -self._log_det(log_factor, z)

    def _log_det(self, log_factor: Tensor, x: Tensor) -> Tensor:
        return sum_event(_like(log_factor, x).expand(1, *x.shape[1:])).expand(x.shape[0])

    def extra_repr(self) -> str:
        """Show the size."""
        return f"{len(self.shift)}, momentum={self.momentum}, eps={self.eps}"


def _like(values: Tensor, x: Tensor) -> Tensor:
    return values.reshape(1, -1, *[1] * (x.dim() - 2))
