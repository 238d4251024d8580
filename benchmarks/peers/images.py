"""Glow of 2 levels of 16 steps on images of 1×28×28, as snflow and normflows have it.

Act-norm, 1×1 convolution, affine coupling whose network is a 3×3, a 1×1 and a 3×3 convolution; half of the channels
leaves between the levels. normflows' 1×1 convolutions are free matrices here too. Not equal: what leaves has a learned
prior in snflow and a fixed one in normflows; normflows' squeezes put the 4 channels in another order. torchflows' Glow
has checkerboard couplings and networks of another kind: it is no contender.
"""

from __future__ import annotations

import torch

from peers.flows import Model

LEVELS, STEPS, SHAPE = 2, 16, (1, 28, 28)


def snflow_glow(width: int, log_det_rule: str = "self_normalized") -> Model:
    """Glow with free 1×1 convolutions, self-normalizing or exact ones."""
    import snflow

    flow = snflow.flows.glow(SHAPE, levels=LEVELS, steps=STEPS, width=width, log_det_rule=log_det_rule)
    return Model(flow, flow.log_prob, flow.sample)


def normflows_glow(width: int) -> Model:
    """The same of normflows."""
    import normflows as nf

    channels, height, wide = SHAPE
    bases, flows, merges = [], [], []
    for level in range(LEVELS):  # the first is the last one that data reach
        inside = channels * 2 ** (LEVELS + 1 - level)
        blocks = [nf.flows.GlowBlock(inside, width, use_lu=False) for _ in range(STEPS)]
        flows.append([*blocks, nf.flows.Squeeze()])
        scale = 2 ** (LEVELS - level)
        latent = (inside if level == 0 else inside // 2, height // scale, wide // scale)
        bases.append(nf.distributions.DiagGaussian(latent, trainable=False))
        merges += [nf.flows.Merge()] if level > 0 else []
    flow = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    return Model(flow, lambda x: flow.log_prob(x, None), lambda n: flow.sample(n)[0])


GLOWS = {
    "snflow": snflow_glow,
    "snflow, exact": lambda width: snflow_glow(width, "exact"),
    "normflows": normflows_glow,
}


def batch(size: int) -> torch.Tensor:
    """Noise in place of images."""
    return torch.randn(size, *SHAPE, generator=torch.Generator(torch.get_default_device()).manual_seed(0))
