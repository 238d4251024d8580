"""The fixed layers between raw data and the trained ones: scale and logit for levels, standardisation for tables."""

from __future__ import annotations

from snflow.bijections import Affine, Bijection, Logit
from snflow.distributions import UniformDequantization


def for_levels(levels: int, logit_alpha: float) -> tuple[list[Bijection], UniformDequantization]:
    """k + u, then / levels, then logit(α + (1 − 2α) ·): integer levels to the whole real line.

    The log-determinants of both layers are part of the flow's, so that −log p counts all preprocessing, in nats of
    the integer data; divided by D ln 2 it is bits/dim.

    Args:
        levels: the number of values that an element can take, 256 for bytes.
        logit_alpha: α.

    Returns:
        The layers, and the dequantization that adds u ~ U[0, 1).

    References:
        Dinh et al. (2017), Density estimation using Real NVP, section 4.1; Theis et al. (2016).

    Example:
        >>> layers, dequantization = for_levels(17, 1e-6)
        >>> len(layers), dequantization.levels
        (2, 17)
    """
    return [Affine(0.0, float(levels)), Logit(logit_alpha)], UniformDequantization(levels)
