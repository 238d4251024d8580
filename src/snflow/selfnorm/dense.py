"""The self-normalizing dense layer."""

from __future__ import annotations

from typing import final

from snflow.arguments import check_choice, check_count
from snflow.bijections.linear.initialization import Initialization, initial_matrix
from snflow.numerics.operators import DenseOperator
from snflow.selfnorm.self_normalizing import SelfNormalizingMap
from snflow.selfnorm.tracking import TrackingName


@final
class SelfNormalizingDense(SelfNormalizingMap):
    """z = W x + b, log|det W|, trained with a learned inverse R ≈ W⁻¹ in place of W⁻¹: O(batch · D²), no determinant.

    The gradient of ½ log p^f + ½ log p^g − λ‖RWx − x‖² reaches the parameters through ``log_det``: call
    ``(-flow.log_prob(x)).mean().backward()`` and step any optimizer.

    Args:
        features: D.
        bias: whether b is there.
        penalty_weight: λ ≥ 0; 1 in the paper's dense models.
        symmetric_penalty: add ‖W R s − s‖², s = W x behind a gradient stop.
        penalty_only_inverse: keep the penalty from W, so that only R follows.
        initialization: W is ``"identity"`` plus small noise, or ``"orthogonal"``; R = Wᵀ.
        inverse_tracking: how R is kept near W⁻¹; ``"penalty"`` is the paper's way.

    Shapes:
        x, z: ``(batch, features)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature, a negative penalty weight, or an unknown word.

    References:
        Keller et al. (2021), Self Normalizing Flows, eq. 3, 8–11.

    Example:
        >>> import torch, snflow
        >>> layer = snflow.SelfNormalizingDense(3)
        >>> x = torch.randn(5, 3)
        >>> z, log_det = layer(x)
        >>> (0.5 * z.square().sum(1) - log_det).mean().backward()
        >>> layer.inverse_weight.grad.shape
        torch.Size([3, 3])
    """

    def __init__(
        self,
        features: int,
        bias: bool = True,
        penalty_weight: float = 1.0,
        *,
        symmetric_penalty: bool = False,
        penalty_only_inverse: bool = False,
        initialization: Initialization = "identity",
        inverse_tracking: TrackingName = "penalty",
    ) -> None:
        check_count("SelfNormalizingDense", "features", features)
        check_choice("SelfNormalizingDense", "initialization", initialization, Initialization)
        super().__init__(
            DenseOperator(),
            initial_matrix(features, initialization),
            bias=bias,
            event_shape=(features,),
            penalty_weight=penalty_weight,
            symmetric_penalty=symmetric_penalty,
            penalty_only_inverse=penalty_only_inverse,
            inverse_tracking=inverse_tracking,
        )
