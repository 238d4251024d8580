"""The self-normalizing dense layer."""

from __future__ import annotations

from typing import Unpack, final

from torch import Tensor

from snflow.arguments import check_choice, check_count
from snflow.bijections.linear.initialization import Initialization, initial_matrix
from snflow.numerics.operators import DenseOperator, TransposedDenseOperator
from snflow.selfnorm.gradient import Operators
from snflow.selfnorm.options import LearnedInverse, LearnedInverseArguments
from snflow.selfnorm.self_normalizing import SelfNormalizingMap


@final
class SelfNormalizingDense(SelfNormalizingMap):
    """z = W x + b, log|det W|, trained with a learned inverse R ≈ W⁻¹ in place of W⁻¹: O(batch · D²), no determinant.

    The gradient of ½ log p^f + ½ log p^g − λ‖RWx − x‖² reaches the parameters through ``log_det``: call
    ``(-flow.log_prob(x)).mean().backward()`` and step any optimizer.

    Args:
        features: D.
        bias: whether b is there.
        initialization: W is ``"identity"`` plus small noise, or ``"orthogonal"``; R = Wᵀ at first.
        learned: how R is kept near W⁻¹, the fields of :class:`~snflow.LearnedInverse`: ``penalty_weight=1.0``,
            ``inverse_tracking="penalty"`` and others.

    Attributes:
        inverse_weight: r = Rᵀ ≈ W⁻ᵀ, with the shape of W: that is how it enters the gradient of log|det W|.

    Shapes:
        x, z: ``(batch, features)``; log_det: ``(batch,)``, nats.

    Raises:
        ConfigError: fewer than one feature, or an option of the learned inverse out of its range.

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
        *,
        initialization: Initialization = "identity",
        **learned: Unpack[LearnedInverseArguments],
    ) -> None:
        check_count("SelfNormalizingDense", "features", features)
        check_choice("SelfNormalizingDense", "initialization", initialization, Initialization)
        weight = initial_matrix(features, initialization)
        super().__init__(
            Operators(DenseOperator(), TransposedDenseOperator()),
            weight,
            weight,
            bias=bias,
            event_shape=(features,),
            learned=LearnedInverse(**learned),
        )

    @property
    def inverse_matrix(self) -> Tensor:
        """R ≈ W⁻¹, with shape ``(features, features)``: a view of the inverse weight, which is its transpose."""
        return self.inverse_weight.mT
