"""The contract of layers and flows: inverses, log-determinants, gradients, precision, rows, state."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

from nightly.check import check, require, within
from nightly.subjects import LAYERS, READY, flow_of, layer_of
from snflow import Dense, Penalty, SelfNormalizingDense
from snflow.testing import checks

ROWS = 10_000
SOLVED = ("ffjord",)
"""Flows whose solver has its own tolerance."""


def off(got: Tensor, wanted: Tensor) -> float:
    """The largest error relative to max(1, |wanted|); infinite where only one of both is NaN."""
    error = ((got - wanted).abs() / wanted.abs().clamp_min(1)).nan_to_num(torch.inf, posinf=torch.inf)
    return float(error.max()) if error.numel() else 0.0


@check(
    "round trips both ways of 10,000 rows, layers and flows, float64 and float32: 1e-9, 1e-4",
    nightly=2 * (LAYERS + 2 * len(READY)),
    chunk=20,
)
@torch.no_grad()
def round_trip(seed: int, folder: Path) -> float:
    """Layers of the catalogue and ready flows by turns, in float64 and then in float32."""
    single, turn = divmod(seed, LAYERS + 2 * len(READY))
    dtype = torch.float32 if single % 2 else torch.float64
    if turn < LAYERS:
        _, case = layer_of(turn)
        layer, x, context = case.layer().to(dtype), case.data(ROWS).to(dtype), case.context(ROWS)
        bound = max(case.round_trip, case.single) if dtype == torch.float32 else case.round_trip
    else:
        subject = flow_of(turn, dtype=dtype)
        layer, x, context = subject.flow.bijection, subject.data(ROWS), subject.context(ROWS)
        bound = 1e-4 if dtype == torch.float32 or subject.name in SOLVED else 1e-9
    context = None if context is None else context.to(dtype)
    z, log_det = layer(x, context)
    back, log_det_back = layer.inverse(z, context)
    errors = [off(back, x), off(layer(back, context)[0], z), off(-log_det_back, log_det)]
    return within(f"{type(layer).__name__} {dtype}: x, z, log_det {errors}", max(errors), bound) / bound


@check("log-determinants in both directions against the Jacobian from autograd: 1e-8", nightly=8 * LAYERS, chunk=40)
def log_det(seed: int, folder: Path) -> None:
    """Three rows of each layer, drawn anew in every round."""
    checks.check_log_det(layer_of(seed)[1])


@check(
    "gradients of both directions against finite differences; the self-normalized one is exact at R = W⁻¹, and "
    "its bias is linear in ‖I − RW‖",
    nightly=4 * (LAYERS + 8),
    chunk=24,
)
def gradients(seed: int, folder: Path) -> float | None:
    """Layers by turns, and then the gradient rule on random matrices."""
    turn = seed % (LAYERS + 8)
    if turn < LAYERS:
        torch.set_default_dtype(torch.float64)
        checks.check_gradients(layer_of(turn)[1])
        return None
    return _self_normalized_gradient(seed)


def _self_normalized_gradient(seed: int) -> float:
    size = 2 + seed % 7
    torch.manual_seed(seed)
    exact = Dense(size).double()
    with torch.no_grad():
        exact.weight.add_(0.3 * torch.randn(size, size))
    x = torch.randn(16, size, dtype=torch.float64)

    def gradient(layer: torch.nn.Module) -> Tensor:
        z, log_det = layer(x)
        return torch.autograd.grad((z.square().sum(1) / 2 - log_det).mean(), layer.weight)[0]

    # The objective of the paper gives each of w and r half of the likelihood gradient; r is the transpose of R.
    wanted, right = gradient(exact) / 2, torch.linalg.inv(exact.weight.detach()).mT
    moved = torch.randn(size, size).double()
    biases = []
    for distance in (0.0, 1e-4, 2e-4):
        layer = SelfNormalizingDense(size, tracking=Penalty(weight=0.0, guard=False)).double()
        with torch.no_grad():
            for name in ("weight", "bias"):
                getattr(layer, name).copy_(getattr(exact, name))
            layer.inverse_weight.copy_(right + distance * moved)
        biases.append(float((gradient(layer) - wanted).norm()))
    within("bias at R = W⁻¹", biases[0], 1e-10)
    within("bias at twice the distance, as a multiple", abs(biases[2] / biases[1] - 2), 1e-2)
    return biases[0]


@check(
    "float32 against float64: 1e-4 + 5e-6·D nats up to D = 3072; autocast changes no bit",
    nightly=4 * LAYERS + 8 * len(READY),
    chunk=40,
)
@torch.no_grad()
def precision(seed: int, folder: Path) -> float | None:
    """Layers, ready flows, and one deep and wide flow in each round."""
    turn = seed % (LAYERS + 2 * len(READY))
    if turn < LAYERS:
        case = layer_of(turn)[1]
        checks.check_single_precision(case)
        checks.check_autocast(case)
        return None
    wide = turn == LAYERS
    subject = flow_of(turn, names=["maf"] if wide else READY, features=[3072] if wide else [1, 2, 8, 64])
    x, context = subject.data(64), subject.context(64)
    exact = subject.flow.log_prob(x, context)
    single = copy.deepcopy(subject.flow).float()
    given = None if context is None else context.float()
    got = single.log_prob(x.float(), given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        require(torch.equal(single.log_prob(x.float(), given), got), f"{subject.name}: autocast changes log_prob")
    bound = 1e-4 + 5e-6 * x[0].numel() + 1e-6 * float(exact.abs().max())
    return within(subject.name, float((got.double() - exact).abs().max()), bound) / bound


@check(
    "a row does not depend on the others: layers to the bit, flows 1e-11 and 1e-5; eval is deterministic",
    nightly=2 * LAYERS + 8 * len(READY),
    chunk=60,
)
@torch.no_grad()
def batch_invariance(seed: int, folder: Path) -> float | None:
    """Layers by turns, then ready flows in both dtypes."""
    turn = seed % (LAYERS + 4 * len(READY))
    if turn < LAYERS:
        checks.check_rows(layer_of(turn)[1])
        checks.check_shapes(layer_of(turn)[1])
        return None
    dtype = torch.float32 if (turn // len(READY)) % 2 else torch.float64
    subject = flow_of(turn, dtype=dtype)
    x, context = subject.data(17), subject.context(17)
    whole = subject.flow.log_prob(x, context)
    require(torch.equal(whole, subject.flow.log_prob(x, context)), f"{subject.name}: eval is not deterministic")
    alone = [subject.flow.log_prob(x[i : i + 1], None if context is None else context[i : i + 1]) for i in range(17)]
    bound = 1e-5 if dtype == torch.float32 else 1e-6 if subject.name in SOLVED else 1e-11
    return within(subject.name, off(torch.cat(alone), whole), bound) / bound


@check(
    "state_dict, safetensors, deepcopy and pickle restore layers and flows to the bit; act-norm initializes once",
    nightly=LAYERS + 8 * len(READY),
    chunk=60,
)
@torch.no_grad()
def state(seed: int, folder: Path) -> None:
    """Layers by turns, then ready flows, also back in training mode."""
    turn = seed % (LAYERS + 4 * len(READY))
    if turn < LAYERS:
        checks.check_state(layer_of(turn)[1])
        return
    subject = flow_of(turn)
    flow, x, context = subject.flow, subject.data(9), subject.context(9)
    wanted = flow.log_prob(x, context)
    buffer, fresh = io.BytesIO(), copy.deepcopy(flow)
    torch.save(flow.state_dict(), buffer)
    copies = {"deepcopy": copy.deepcopy(flow), "pickle": pickle.loads(pickle.dumps(flow))}
    for name, read in (
        ("torch.load", torch.load(io.BytesIO(buffer.getvalue()), weights_only=True)),
        ("safetensors", safetensors.torch.load(safetensors.torch.save(flow.state_dict()))),
    ):
        for parameter in fresh.parameters():
            parameter.zero_()
        fresh.load_state_dict(read)
        copies[name] = copy.deepcopy(fresh)
    for name, twin in copies.items():
        require(torch.equal(twin.eval().log_prob(x, context), wanted), f"{subject.name} after {name}")
    again = copies["torch.load"].train()
    before = {name: value.clone() for name, value in again.named_parameters()}
    again.log_prob(10 * x + 3 if subject.name != "circular_spline" else x, context)
    changed = [name for name, value in again.named_parameters() if not torch.equal(value, before[name])]
    require(not changed, f"{subject.name}: {changed} are initialized again after loading")


@check(
    "one bad row of 256 (NaN, ±inf, largest float) leaves the other 255 equal to the bit", nightly=3 * LAYERS, chunk=60
)
@torch.no_grad()
def bad_row(seed: int, folder: Path) -> None:
    """Layers by turns; the bad value and its place are drawn."""
    name, case = layer_of(seed)
    layer, x, context = case.layer(), case.data(256), case.context(256)
    row = int(torch.randint(256, ()))
    bad = [torch.nan, torch.inf, -torch.inf, torch.finfo(x.dtype).max][seed // LAYERS % 4]
    damaged = x.clone()
    damaged[row] = bad
    others = torch.arange(256) != row
    for what, got, wanted in zip(("z", "log_det"), layer(damaged, context), layer(x, context), strict=True):
        within(f"{name}: {what} of the other rows beside {bad}", off(got[others], wanted[others]), case.rows)
