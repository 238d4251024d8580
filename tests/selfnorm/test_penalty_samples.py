"""The penalty on some rows of a batch: right on average, and the whole penalty for all rows."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from snflow import Penalty, SelfNormalizingConv2d, SelfNormalizingDense
from snflow.errors import ConfigError
from snflow.selfnorm.gradient import self_normalized
from snflow.selfnorm.layers import SelfNormalizingMap

LAYERS = {
    "dense": (lambda **options: SelfNormalizingDense(3, tracking=Penalty(**options)), (3,)),
    "conv": (lambda **options: SelfNormalizingConv2d(2, 3, tracking=Penalty(**options)), (2, 3, 4)),
}
RULES = {
    "plain": {},
    "symmetric": {"symmetric": True},
    "through": {"symmetric": "through"},
    "on the inverse only": {"on_inverse_only": True},
}


def gradients(layer: SelfNormalizingMap, x: Tensor, rows: Tensor | None) -> list[Tensor]:
    """Of a loss whose pull on the log-determinants differs from row to row."""
    weights = (layer.weight, layer.inverse_weight)
    s, log_det, _ = self_normalized(
        x, *weights, torch.tensor(3.0), torch.tensor(0.0), layer.operators, layer.rule, None, rows
    )
    loss = (torch.linspace(-0.5, 2.0, len(x)) * (s.square().flatten(1).sum(1) - log_det)).mean()
    return list(torch.autograd.grad(loss, (x, *weights)))


def shaken(kind: str, **options: object) -> tuple[SelfNormalizingMap, Tensor]:
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    layer = make(**options)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return layer, torch.randn(5, *shape, requires_grad=True)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("options", RULES.values(), ids=RULES)
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_mean_over_all_choices_of_rows_is_the_gradient_of_all(kind: str, options: dict, count: int) -> None:
    layer, x = shaken(kind, **options)
    whole = gradients(layer, x, None)
    chosen = [gradients(layer, x, torch.tensor(rows)) for rows in combinations(range(5), count)]
    for wanted, *got in zip(whole, *chosen, strict=True):
        assert torch.allclose(torch.stack(got).mean(0), wanted, rtol=1e-10, atol=1e-12)
    if count < 5:
        assert not torch.allclose(chosen[0][2], whole[2], rtol=1e-3)


@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_draws_its_rows_anew(kind: str) -> None:
    layer, x = shaken(kind, samples=2)
    errors = set()
    for _ in range(6):
        layer(x)
        errors.add(float(layer.reconstruction_error))
    assert len(errors) > 1


@pytest.mark.parametrize("kind", LAYERS)
def test_a_batch_no_larger_than_that_is_taken_whole(kind: str) -> None:
    found = []
    for options in ({}, {"samples": 5}):
        layer, x = shaken(kind, **options)
        z, log_det = layer(x)
        (z.square().sum() - log_det.sum()).backward()
        found.append(layer.inverse_weight.grad)
    assert torch.equal(*found)


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(ConfigError, match="samples ≥ 1"):
        Penalty(samples=0)
