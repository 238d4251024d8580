"""The same flows from each library that has them: on vectors, and Glow on images.

On vectors: five layers, networks of two hidden layers of one width. What cannot be made equal is left as the library
has it, and the table counts the parameters: torchflows puts act-norms and element-wise affine layers around each layer;
nflows and normflows add a layer of the conditioner's width in front of its blocks, so one block is requested; initial
values are each library's own.

On images: Glow of 2 scales of 16 steps on 1×28×28, in snflow and normflows. A step is act-norm, 1×1 convolution and an
affine coupling whose network has a 3×3, a 1×1 and a 3×3 convolution; half of the channels leave between the scales.
normflows' 1×1 convolutions are free matrices here too. Not equal: the channels that leave have a learned prior in
snflow and a fixed one in normflows, and normflows' squeezes order the 4 channels differently. torchflows' Glow has
checkerboard couplings and networks of another kind, so it is not compared.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

LAYERS, WIDTH, BINS, BOUND = 5, 64, 8, 5.0
SCALES, STEPS, SHAPE = 2, 16, (1, 28, 28)
"""Size of Glow, and the shape of its images."""


class Model(nn.Module):
    """A trainable density of one of the libraries: ``log_prob(x)`` ``(batch,)`` in nats, ``sample(n)``."""

    def __init__(
        self,
        module: nn.Module,
        log_prob: Callable[[Tensor], Tensor],
        sample: Callable[[int], Tensor],
        after_step: Callable[[], object] | None = None,
    ) -> None:
        super().__init__()
        self.module, self._log_prob, self._sample, self._after_step = module, log_prob, sample, after_step

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats, ``(batch,)``."""
        return self._log_prob(x)

    def sample(self, count: int) -> Tensor:
        """Draw points, ``(count, features)``."""
        return self._sample(count)

    def after_step(self) -> None:
        """Do what the library requires after every optimizer step."""
        if self._after_step is not None:
            self._after_step()

    def parameters_trained(self) -> int:
        """The number of trained parameters."""
        return sum(p.numel() for p in self.module.parameters() if p.requires_grad)


def snflow_model(kind: str, features: int) -> Model:
    """Build a kind of flow with snflow."""
    import snflow

    shared = {"layers": LAYERS, "width": WIDTH, "depth": 2}
    spline = {**shared, "bins": BINS, "tail_bound": BOUND}
    match kind:
        case "maf":
            flow = snflow.flows.maf(features, mixing="reverse", **shared)
        case "realnvp":
            flow = snflow.flows.realnvp(features, batch_norm=False, **shared)
        case "spline_autoregressive":
            flow = snflow.flows.neural_spline(features, kind="autoregressive", mixing="reverse", **spline)
        case "spline_coupling":
            flow = snflow.flows.neural_spline(features, kind="coupling", mixing="none", **spline)
        case "residual":
            flow = snflow.flows.residual(features, act_norm=False, **shared)
        case "ffjord":
            flow = snflow.flows.ffjord(features, width=WIDTH, depth=2, trace="exact")
        case _:
            raise ValueError(kind)
    return Model(flow, flow.log_prob, flow.sample)


def zuko_model(kind: str, features: int) -> Model:
    """Build a kind of flow with zuko."""
    import zuko
    from zuko.flows.coupling import GeneralCouplingTransform
    from zuko.transforms import MonotonicRQSTransform

    shared = {"transforms": LAYERS, "hidden_features": (WIDTH, WIDTH)}
    match kind:
        case "maf":
            flow = zuko.flows.MAF(features, **shared)
        case "spline_autoregressive":
            flow = zuko.flows.NSF(features, bins=BINS, **shared)
        case "realnvp" | "spline_coupling":
            spline = {"univariate": MonotonicRQSTransform, "shapes": [(BINS,), (BINS,), (BINS - 1,)]}
            transforms = [
                GeneralCouplingTransform(
                    features,
                    mask=torch.arange(features) % 2 == i % 2,
                    hidden_features=(WIDTH, WIDTH),
                    **(spline if kind == "spline_coupling" else {}),
                )
                for i in range(LAYERS)
            ]
            normal = zuko.flows.UnconditionalDistribution(
                zuko.distributions.DiagNormal, torch.zeros(features), torch.ones(features), buffer=True
            )
            flow = zuko.flows.Flow(transforms, normal)
        case "ffjord":
            flow = zuko.flows.CNF(features, hidden_features=(WIDTH, WIDTH), atol=1e-5, rtol=1e-5)
        case _:
            raise ValueError(kind)
    return Model(flow, lambda x: flow().log_prob(x), lambda n: flow().sample((n,)))


def nflows_model(kind: str, features: int) -> Model:
    """Build a kind of flow with nflows."""
    from nflows.distributions.normal import StandardNormal
    from nflows.flows.base import Flow
    from nflows.nn.nets import MLP
    from nflows.transforms import (
        AffineCouplingTransform,
        CompositeTransform,
        MaskedAffineAutoregressiveTransform,
        MaskedPiecewiseRationalQuadraticAutoregressiveTransform,
        PiecewiseRationalQuadraticCouplingTransform,
        ReversePermutation,
    )

    masked = {"features": features, "hidden_features": WIDTH, "num_blocks": 1, "use_residual_blocks": False}
    spline = {"num_bins": BINS, "tails": "linear", "tail_bound": BOUND}

    class Net(MLP):
        """Unlike this one, its other networks accept the context that its couplings pass."""

        def forward(self, inputs: Tensor, context: None = None) -> Tensor:
            return super().forward(inputs)

    def net(inputs: int, outputs: int) -> nn.Module:
        return Net((inputs,), (outputs,), [WIDTH, WIDTH])

    layers: list[nn.Module] = []
    for i in range(LAYERS):
        mask = torch.arange(features) % 2 != i % 2  # the transformed features, not the kept ones
        match kind:
            case "maf":
                layers += [MaskedAffineAutoregressiveTransform(**masked), ReversePermutation(features)]
            case "spline_autoregressive":
                layer = MaskedPiecewiseRationalQuadraticAutoregressiveTransform(**masked, **spline)
                layers += [layer, ReversePermutation(features)]
            case "realnvp":
                layers.append(AffineCouplingTransform(mask, net))
            case "spline_coupling":
                layers.append(PiecewiseRationalQuadraticCouplingTransform(mask, net, **spline))
    flow = Flow(CompositeTransform(layers), StandardNormal([features]))
    return Model(flow, flow.log_prob, flow.sample)


def normflows_model(kind: str, features: int) -> Model:
    """Build a kind of flow with normflows."""
    import normflows as nf
    from normflows.flows.base import Reverse

    layers: list[nn.Module] = []
    for i in range(LAYERS):
        match kind:
            case "maf":
                # its inverse is the slow direction: without Reverse a density would take one pass per feature
                layer = nf.flows.MaskedAffineAutoregressive(features, WIDTH, num_blocks=1, use_residual_blocks=False)
                layers += [Reverse(layer), nf.flows.Permute(features, "swap")]
            case "spline_autoregressive":
                # no option for plain blocks
                layer = nf.flows.AutoregressiveRationalQuadraticSpline(
                    features, 1, WIDTH, num_bins=BINS, tail_bound=int(BOUND), init_identity=False
                )
                layers += [layer, nf.flows.Permute(features, "swap")]
            case "realnvp":
                # keeps the first half; Permute alternates the halves
                net = nf.nets.MLP([(features + 1) // 2, WIDTH, WIDTH, features // 2 * 2], init_zeros=True)
                layers += [nf.flows.AffineCouplingBlock(net), nf.flows.Permute(features, "swap")]
            case "spline_coupling":
                layers.append(
                    nf.flows.CoupledRationalQuadraticSpline(
                        features, 1, WIDTH, num_bins=BINS, tail_bound=int(BOUND), reverse_mask=bool(i % 2)
                    )
                )
            case "residual":
                net = nf.nets.LipschitzMLP([features, WIDTH, WIDTH, features], init_zeros=False)
                layers.append(nf.flows.Residual(net, brute_force=features == 2))  # exact, as ours is there
    flow = nf.NormalizingFlow(nf.distributions.DiagGaussian(features, trainable=False), layers)
    after = (lambda: nf.utils.update_lipschitz(flow, 5)) if kind == "residual" else None
    return Model(flow, flow.log_prob, lambda n: flow.sample(n)[0], after)


def torchflows_model(kind: str, features: int) -> Model:
    """Build a kind of flow with torchflows."""
    from torchflows.bijections.base import BijectiveComposition
    from torchflows.bijections.continuous.ffjord import FFJORD
    from torchflows.bijections.finite.autoregressive.architectures import (
        MAF,
        CouplingRQNSF,
        MaskedAutoregressiveRQNSF,
        RealNVP,
    )
    from torchflows.bijections.finite.residual.iterative import ResFlowBlock, SpectralLinear
    from torchflows.flows import Flow

    networks = {"n_layers": LAYERS, "conditioner_kwargs": {"n_hidden": WIDTH, "n_layers": 3, "nonlinearity": nn.ReLU}}
    spline = {"transformer_kwargs": {"n_bins": BINS, "boundary": BOUND}}
    match kind:
        case "maf":
            bijection = MAF((features,), **networks)
        case "realnvp":
            bijection = RealNVP((features,), **networks)
        case "spline_autoregressive":
            bijection = MaskedAutoregressiveRQNSF((features,), **networks, **spline)
        case "spline_coupling":
            bijection = CouplingRQNSF((features,), **networks, **spline)
        case "residual":
            blocks: list[nn.Module] = []
            for _ in range(LAYERS):
                # its own network uses the number of features as its number of layers
                net = nn.Sequential(
                    SpectralLinear(features, WIDTH),
                    nn.Tanh(),
                    SpectralLinear(WIDTH, WIDTH),
                    nn.Tanh(),
                    SpectralLinear(WIDTH, features),
                )
                blocks.append(ResFlowBlock((features,), g=net))
            bijection = BijectiveComposition(blocks)
        case "ffjord":
            # builds one hidden layer more than requested; fixed fourth-order steps, an estimated trace
            bijection = FFJORD((features,), nn_kwargs={"hidden_size": WIDTH, "n_hidden_layers": 1})
        case _:
            raise ValueError(kind)
    flow = Flow(bijection)
    return Model(flow, flow.log_prob, lambda n: flow.sample((n,)))


KINDS = ("maf", "realnvp", "spline_autoregressive", "spline_coupling", "residual", "ffjord")

HAVE: dict[str, tuple[str, ...]] = {
    "residual": ("snflow", "normflows", "torchflows"),
    "ffjord": ("snflow", "zuko", "torchflows"),
}
"""Kinds that only some libraries have."""

LIBRARIES: dict[str, Callable[[str, int], Model]] = {
    "snflow": snflow_model,
    "zuko": zuko_model,
    "nflows": nflows_model,
    "normflows": normflows_model,
    "torchflows": torchflows_model,
}


def snflow_glow(width: int, log_det_rule: str = "self_normalized") -> Model:
    """Glow with free 1×1 convolutions, self-normalizing or exact ones."""
    import snflow

    flow = snflow.flows.glow(SHAPE, scales=SCALES, layers=STEPS, width=width, log_det_rule=log_det_rule)
    return Model(flow, flow.log_prob, flow.sample)


def normflows_glow(width: int) -> Model:
    """The same flow in normflows."""
    import normflows as nf

    channels, height, wide = SHAPE
    bases, flows, merges = [], [], []
    for scale in range(SCALES):  # from the last scale to the first
        inner = channels * 2 ** (SCALES + 1 - scale)
        blocks = [nf.flows.GlowBlock(inner, width, use_lu=False) for _ in range(STEPS)]
        flows.append([*blocks, nf.flows.Squeeze()])
        factor = 2 ** (SCALES - scale)
        latent = (inner if scale == 0 else inner // 2, height // factor, wide // factor)
        bases.append(nf.distributions.DiagGaussian(latent, trainable=False))
        merges += [nf.flows.Merge()] if scale > 0 else []
    flow = nf.MultiscaleFlow(bases, flows, merges, class_cond=False)
    return Model(flow, lambda x: flow.log_prob(x, None), lambda n: flow.sample(n)[0])


GLOWS = {
    "snflow": snflow_glow,
    "snflow, exact": lambda width: snflow_glow(width, "exact"),
    "normflows": normflows_glow,
}


def noise_images(size: int) -> torch.Tensor:
    """Noise instead of images, ``(size, 1, 28, 28)``."""
    return torch.randn(size, *SHAPE, generator=torch.Generator(torch.get_default_device()).manual_seed(0))
