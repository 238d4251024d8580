"""Flows as compiled and as exported graphs, and under the transforms of torch.func."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from nightly.check import Found, check, require, within
from nightly.contract import off
from nightly.subjects import LAYERS, READY, Subject, flow_of, layer_of
from snflow.errors import SnflowError
from snflow.testing import checks

DEPENDS_ON_VALUES = ("conv", "densenet", "ffjord", "mintnet", "pair", "residual")
"""Flows that may refuse to be exported: they check a result, or look for a step or a norm until it is good enough."""


class Density(nn.Module):
    """x → log p(x), or with a context (x, c) → log p(x | c)."""

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self.flow = subject.flow

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Evaluate the density."""
        return self.flow.log_prob(x, context)


@check(
    "torch.compile of every ready flow, in train() and eval(), with three sizes of batch: values and gradients as"
    " without, 1e-5, or a fallback with a warning that says why",
    nightly=6 * len(READY),
    chunk=6,
    minutes=60,
)
def compiled(seed: int, folder: Path) -> Found:
    """A ready flow by turns; AOT autograd with and without a context, and then generated code."""
    turn = seed // len(READY)
    backend, training = ("aot_eager", turn // 2 % 2) if turn < 4 else ("inductor", turn % 2)
    subject = flow_of(seed, features=[3], contexts=turn < 4, dtype=torch.float32)
    flow = subject.flow.train(bool(training))
    if subject.name == "realnvp" and training:
        flow.eval()  # batch statistics change from call to call
    torch._dynamo.reset()
    inputs = [(subject.data(rows), subject.context(rows)) for rows in (6, 11, 17)]
    flow.log_prob(*inputs[0])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = torch.compile(flow, backend=backend, dynamic=True)
        worst = 0.0
        for x, context in inputs:
            results = []
            for call in (run, flow):
                torch.manual_seed(seed)
                flow.zero_grad()
                value = call(x, context)
                value.mean().backward()
                gradients = {n: p.grad.clone() for n, p in flow.named_parameters() if p.grad is not None}
                results.append((value.detach(), gradients))
            (got, got_grads), (wanted, wanted_grads) = results
            require(got_grads.keys() == wanted_grads.keys(), f"{subject.name}: parameters without gradients")
            errors = [off(got, wanted), *(off(got_grads[n], g) for n, g in wanted_grads.items())]
            worst = within(f"{subject.name}, train={training}, {backend}, {len(x)} rows", max(worst, *errors), 1e-3)
    breaks = torch._dynamo.utils.counters["graph_break"]
    told = any("uncompiled" in str(w.message) for w in said)
    require(
        not breaks or told,
        f"{subject.name}, train={training}: {sum(breaks.values())} silent graph breaks: {list(breaks)[:1]}",
    )
    return Found(worst, {"partly uncompiled, with a warning": int(told), "whole": int(not told)})


@check(
    "torch.export of every ready flow's density with a batch of any size: as without, 1e-9; an error before any "
    "result for flows whose steps depend on values",
    nightly=2 * len(READY),
    chunk=12,
    minutes=60,
)
@torch.no_grad()
def exported(seed: int, folder: Path) -> Found:
    """A ready flow by turns, exported at one size and called with three."""
    subject = flow_of(seed, features=[3], contexts=False)
    module, batch = Density(subject), torch.export.Dim("batch", min=2, max=10_000)
    try:
        graph = torch.export.export(module, (subject.data(5),), dynamic_shapes=({0: batch},)).module()
    except Exception as error:
        require(subject.name in DEPENDS_ON_VALUES, f"{subject.name} is not exported: {type(error).__name__}: {error}")
        return Found(counted={f"{subject.name}: not exported": 1})
    worst = 0.0
    for rows in (5, 2, 33):
        x = subject.data(rows)
        worst = max(worst, within(f"{subject.name}, {rows} rows", off(graph(x), module(x)), 1e-9))
    return Found(worst, {"exported": 1})


@check(
    "gradients under torch.func (vmap of grad, jvp, functional_call) equal autograd's, or a layer refuses",
    nightly=4 * LAYERS,
    chunk=60,
)
def functional(seed: int, folder: Path) -> None:
    """Layers by turns, and Jacobians of flows row by row."""
    checks.check_transforms(layer_of(seed)[1])
    subject = flow_of(seed, contexts=False)
    x = subject.data(3)
    try:
        by_row = torch.func.vmap(
            torch.func.jacrev(lambda row: subject.flow.log_prob(row[None])[0]), randomness="different"
        )(x)
    except SnflowError:
        return
    leaf = x.clone().requires_grad_()
    wanted = torch.autograd.grad(subject.flow.log_prob(leaf).sum(), leaf)[0]
    within(f"{subject.name}: vmap(jacrev)", off(by_row, wanted), 1e-8)
