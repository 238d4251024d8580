"""The angle between a layer's training gradient and the exact one."""

import torch

from snflow import Penalty, SelfNormalizingDense, flows, gradient_angles


def test_angles_see_an_inverse_that_is_none():
    flow = flows.dense((3,), initialization="orthogonal", tracking=Penalty(weight=0.0))
    batch = torch.randn(8, 3)
    first = next(m for m in flow.modules() if isinstance(m, SelfNormalizingDense))
    with torch.no_grad():
        first.inverse_weight.neg_()
    found = list(gradient_angles(flow, batch).values())
    assert found[0] > 1
    assert max(found[1:]) < 1e-3


def test_the_angle_of_the_likelihood_leaves_the_penalty_out():
    flow = flows.dense((3,), initialization="orthogonal", tracking=Penalty(weight=50.0))
    batch = torch.randn(8, 3)
    with torch.no_grad():
        for layer in flow.modules():
            if isinstance(layer, SelfNormalizingDense):
                layer.inverse_weight.add_(0.01 * torch.randn_like(layer.inverse_weight))
    whole = gradient_angles(flow, batch)
    likelihood = gradient_angles(flow, batch, penalty=False)
    assert all(likelihood[name] < whole[name] / 3 for name in whole)
    assert all(float(m.tracking.penalty_weight) == 50 for m in flow.modules() if isinstance(m, SelfNormalizingDense))
