"""The contract's checks on the layers of other libraries.

    .venv/bin/python benchmarks/peer_faults.py

Each layer is wrapped in `snflow.testing.ForeignLayer`, its parameters are perturbed slightly, and it is checked in
float64 on three normal features. Checks that the wrapper itself answers are left out.
"""

from __future__ import annotations

import argparse
import signal
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import torch
from torch import Tensor, nn

import snflow
from snflow.testing import ForeignLayer, check

FEATURES = 3
PATIENCE = 120  # seconds per layer
ASKED = ("round_trip", "log_det", "rows", "gradients", "single_precision", "state")


def zuko_forward(module: nn.Module, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """z and its log-determinant from zuko's lazy transforms."""
    return module(context).call_and_ladj(x)


def zuko_inverse(module: nn.Module, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """x and its log-determinant, in the same way."""
    return module(context).inv.call_and_ladj(z)


def torchflows_forward(module: nn.Module, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """z and its log-determinant, from a copy: torchflows modifies some inputs in place."""
    return module.forward(x.clone(), context=context)


def torchflows_inverse(module: nn.Module, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
    """x and its log-determinant, in the same way."""
    return module.inverse(z.clone(), context=context)


def zuko_layers() -> dict[str, Callable[[], ForeignLayer]]:
    """One layer of each flow of zuko."""
    import zuko.flows as zf

    def first(flow: nn.Module) -> ForeignLayer:
        return ForeignLayer(flow.transform.transforms[0], zuko_forward, zuko_inverse, (FEATURES,))

    flows = (zf.MAF, zf.NSF, zf.RealNVP, zf.NAF, zf.UNAF, zf.SOSPF, zf.BPF, zf.GF)
    small = {zf.NAF: {"network": {"hidden_features": (8, 8)}}, zf.UNAF: {"network": {"hidden_features": (8, 8)}}}
    return {
        cls.__name__: lambda cls=cls: first(cls(FEATURES, transforms=1, hidden_features=(8,), **small.get(cls, {})))
        for cls in flows
    } | {
        "CNF": lambda: ForeignLayer(
            zf.CNF(FEATURES, hidden_features=(8,)).transform, zuko_forward, zuko_inverse, (FEATURES,)
        )
    }


def nflows_layers() -> dict[str, Callable[[], ForeignLayer]]:
    """Transforms of nflows for vectors."""
    import nflows.transforms as nt
    from nflows.nn.nets import ResidualNet

    def net(inputs: int, outputs: int) -> nn.Module:
        return ResidualNet(inputs, outputs, 16)

    mask, masked = torch.tensor([0, 1, 0]), {"features": FEATURES, "hidden_features": 16}
    tails = {"num_bins": 5, "tails": "linear", "tail_bound": 3.0}
    build: dict[str, Callable[[], nn.Module]] = {
        "MaskedAffineAutoregressiveTransform": lambda: nt.MaskedAffineAutoregressiveTransform(**masked),
        "MaskedPiecewiseRationalQuadraticAutoregressiveTransform": lambda: (
            nt.MaskedPiecewiseRationalQuadraticAutoregressiveTransform(**masked, **tails)
        ),
        "AffineCouplingTransform": lambda: nt.AffineCouplingTransform(mask, net),
        "PiecewiseCubicCouplingTransform": lambda: nt.PiecewiseCubicCouplingTransform(mask, net, **tails),
        "PiecewiseRationalQuadraticCouplingTransform": lambda: nt.PiecewiseRationalQuadraticCouplingTransform(
            mask, net, **tails
        ),
        "LULinear": lambda: nt.LULinear(FEATURES),
        "QRLinear": lambda: nt.QRLinear(FEATURES, 2),
        "SVDLinear": lambda: nt.SVDLinear(FEATURES, 2),
        "HouseholderSequence": lambda: nt.HouseholderSequence(FEATURES, 2),
        "BatchNorm": lambda: nt.BatchNorm(FEATURES),
        "LeakyReLU": lambda: nt.LeakyReLU(),
    }
    return {
        name: lambda make=make: ForeignLayer(make(), "forward", "inverse", (FEATURES,)) for name, make in build.items()
    }


def normflows_layers() -> dict[str, Callable[[], ForeignLayer]]:
    """Layers of normflows, whose forward direction is from latents to data."""
    import normflows.flows as nf
    from normflows.nets import MLP, LipschitzMLP

    build: dict[str, Callable[[], nn.Module]] = {
        "MaskedAffineAutoregressive": lambda: nf.MaskedAffineAutoregressive(FEATURES, 16),
        "AutoregressiveRationalQuadraticSpline": lambda: nf.AutoregressiveRationalQuadraticSpline(FEATURES, 1, 16),
        "CoupledRationalQuadraticSpline": lambda: nf.CoupledRationalQuadraticSpline(FEATURES, 1, 16),
        "AffineCouplingBlock": lambda: nf.AffineCouplingBlock(MLP([2, 16, 2])),
        "LULinearPermute": lambda: nf.LULinearPermute(FEATURES),
        "InvertibleAffine": lambda: nf.InvertibleAffine(FEATURES),
        "Planar": lambda: nf.Planar((FEATURES,), act="leaky_relu"),
        "Radial": lambda: nf.Radial((FEATURES,)),
        "Residual": lambda: nf.Residual(LipschitzMLP([FEATURES, 16, FEATURES]), exact_trace=True),
    }
    return {
        name: lambda make=make: ForeignLayer(make(), "inverse", "forward", (FEATURES,)) for name, make in build.items()
    }


def torchflows_layers() -> dict[str, Callable[[], ForeignLayer]]:
    """Layers of torchflows for vectors."""
    import torchflows.bijections.finite.autoregressive.layers as tl

    names = (
        "AffineCoupling",
        "RQSCoupling",
        "LRSCoupling",
        "AffineForwardMaskedAutoregressive",
        "RQSForwardMaskedAutoregressive",
        "DeepSigmoidalCoupling",
        "DenseSigmoidalCoupling",
        "UMNNMaskedAutoregressive",
    )
    return {
        name: lambda name=name: ForeignLayer(
            getattr(tl, name)((FEATURES,)), torchflows_forward, torchflows_inverse, (FEATURES,)
        )
        for name in names
    }


def own_layers() -> dict[str, Callable[[], snflow.Bijection]]:
    """The same kinds of layers of this library."""
    flows = snflow.flows
    kinds = {
        "affine autoregressive": lambda: flows.maf(FEATURES, layers=1, width=16),
        "spline, autoregressive": lambda: flows.neural_spline(FEATURES, kind="autoregressive", layers=1, width=16),
        "spline, coupling": lambda: flows.neural_spline(FEATURES, layers=1, width=16),
        "affine coupling": lambda: flows.realnvp(FEATURES, layers=2, width=16),
        "sigmoidal": lambda: flows.naf(FEATURES, layers=1, width=8, units=4),
        "block autoregressive": lambda: flows.bnaf(FEATURES, layers=1, width=4),
        "integral of a network": lambda: flows.umnn(FEATURES, layers=1, width=8, integrand_width=8),
        "sum of squares": lambda: flows.sos(FEATURES, layers=1, width=8),
    }
    return {name: lambda make=make: make().bijection for name, make in kinds.items()}


LIBRARIES = {
    "zuko": zuko_layers,
    "nflows": nflows_layers,
    "normflows": normflows_layers,
    "torchflows": torchflows_layers,
    "snflow": own_layers,
}


def moved(layer: snflow.Bijection) -> snflow.Bijection:
    """Perturb each parameter, as the catalogue does with this library's layers."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer


def _impatient(*_: object) -> None:
    raise _OutOfTime


class _OutOfTime(BaseException):
    """Not an Exception, so that no check takes it for a fault of the layer."""


def main() -> None:
    """Check every layer and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("results/peer_faults"))
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    signal.signal(signal.SIGALRM, _impatient)
    text = f"""# The contract's checks on the layers of other libraries

Default layers, parameters perturbed by 0.1 N(0, 1), float64, {FEATURES} features; checks: {", ".join(ASKED)}.
Tolerances: 1e-9 for a round trip, 1e-8 for a log-determinant, 1e-6 for gradients, 1e-4 for float32 against float64. An
iterative inverse with a coarser tolerance fails the first by design; its row gives the error.

Written by `python benchmarks/peer_faults.py`, torch {torch.__version__};
{", ".join(f"{name} {version(name)}" for name in LIBRARIES)}.
"""
    for library, layers in LIBRARIES.items():
        text += f"\n## {library}\n\n| layer | found |\n|---|---|\n"
        for name, make in layers().items():
            torch.manual_seed(0)
            try:
                signal.alarm(PATIENCE)
                report = check(moved(make()), (FEATURES,))
                found = [f"{key}: {_short(report[key])}" for key in ASKED if report[key] != "ok"]
            except _OutOfTime:
                found = [f"not finished within {PATIENCE} s"]
            finally:
                signal.alarm(0)
            text += f"| {name} | {'<br>'.join(found) or 'nothing'} |\n"
            print(library, name, found, flush=True)
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "README.md").write_text(text)


def _short(message: str) -> str:
    line = " ".join(message.replace("|", "/").split())
    return line if len(line) <= 160 else f"{line[:157]}..."


if __name__ == "__main__":
    main()
