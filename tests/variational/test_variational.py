"""The variational view: the bound tends to the change of variables, and its gradient reaches g."""

import pytest
import torch

from snflow import Chain, SelfNormalizingDense, SmoothLeakyReLU, StandardNormal
from snflow.errors import ConfigError
from snflow.variational.stochastic_inverse import StochasticInverse


def model(sigma, inverse="exact"):
    torch.manual_seed(3)
    chain = Chain([SelfNormalizingDense(3), SmoothLeakyReLU(), SelfNormalizingDense(3)])
    with torch.no_grad():
        for layer in (chain[0], chain[2]):
            layer.weight.add_(0.3 * torch.randn(3, 3))
            layer.inverse_matrix.copy_(torch.linalg.inv(layer.weight))
    return StochasticInverse(chain, StandardNormal(3), sigma=sigma, inverse=inverse)


def test_the_bound_tends_to_the_change_of_variables():
    x, gaps = torch.randn(20, 3), {}
    for sigma in (0.2, 0.1, 0.05):
        bound = model(sigma).eval()
        with torch.no_grad():
            z, log_det = bound.bijection(x)
            likelihood = bound.base.log_prob(z) + log_det
            torch.manual_seed(4)
            gaps[sigma] = float((likelihood - bound.elbo(x, samples=20_000)).mean())
    assert gaps[0.2] > gaps[0.1] > gaps[0.05] > 0
    # The gap is −σ²/2 tr ∇² log p, up to σ⁴ and the noise of the samples.
    assert gaps[0.2] / gaps[0.1] == pytest.approx(4, rel=0.15)
    assert gaps[0.1] / gaps[0.05] == pytest.approx(4, rel=0.3)


def test_a_wrong_inverse_lowers_the_bound():
    exact, learned = model(0.05), model(0.05, "learned")
    with torch.no_grad():
        learned.bijection[0].inverse_weight.add_(0.1)
    x = torch.randn(20, 3)
    assert learned.eval().elbo(x, samples=50).mean() < exact.eval().elbo(x, samples=50).mean() - 1


def test_the_entropy_term_has_the_self_normalizing_gradient():
    bound = model(1e-6).train()
    x = torch.randn(6, 3)
    torch.manual_seed(0)
    _, log_det = bound.bijection(x + 1e-6 * torch.randn(6, 3))
    wanted = torch.autograd.grad(log_det.sum(), bound.bijection[0].weight)[0]
    torch.manual_seed(0)
    noisy = x + 1e-6 * torch.randn(1, 6, 3)[0]
    _, again = bound.bijection(noisy)
    torch.testing.assert_close(torch.autograd.grad(again.sum(), bound.bijection[0].weight)[0], wanted)
    bound(x).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in bound.parameters())


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("nan"), "small"])
def test_sigma_must_be_positive(sigma):
    with pytest.raises(ConfigError, match="StochasticInverse: expected sigma > 0"):
        model(sigma)


def test_an_unknown_inversion_method_is_refused():
    with pytest.raises(ConfigError, match="'learnt'; did you mean 'learned'"):
        model(0.1, "learnt")
