"""Problems reported by users of other libraries, one test each."""

import math

import pytest
import torch

import snflow
from snflow import flows
from snflow.errors import ConvergenceError, SnflowError
from snflow.numerics.root_finding import invert_increasing
from snflow.testing import ForeignLayer, check


def spline_flow(**options):
    torch.manual_seed(0)
    return flows.neural_spline(3, layers=2, width=16, **options).eval()


@pytest.mark.parametrize("kind", ["coupling", "autoregressive"])
def test_splines_of_extreme_parameters_are_inverted_without_nan(kind):
    """A negative discriminant gave NaN in the inverse of rational-quadratic splines."""
    flow = spline_flow(kind=kind)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
        x = 2 * torch.randn(500, 3)
        z = flow.encode(x)
        back = flow.decode(z)
        assert bool(z.isfinite().all())
        assert bool(back.isfinite().all())
        # slopes go down to 1e-4 per layer: x is recovered approximately
        torch.testing.assert_close(back, x, rtol=0, atol=0.02)


@pytest.mark.parametrize("outside", [5.0, 5.0 + 1e-9, 50.0, 1e8])
def test_points_outside_the_splines_box_have_gradients_without_nan(outside):
    """torch.where hides a NaN of the branch that is not taken in the value, not in the gradient."""
    flow = spline_flow()
    x = torch.tensor([[outside, -outside, 0.1]], requires_grad=True)
    flow.log_prob(x).sum().backward()
    assert bool(x.grad.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in flow.parameters() if p.grad is not None)


def test_heavy_tails_train_without_nan():
    """One sample in ten beyond the box: the tails are the identity, and the flow learns what it can."""
    flow = spline_flow().train()
    optimizer = torch.optim.Adam(flow.parameters(), 1e-2)
    x = torch.distributions.StudentT(1.0).sample((256, 3))
    first = None
    for _ in range(30):
        loss = -flow.log_prob(x).mean()
        first = loss.item() if first is None else first
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert math.isfinite(loss.item())
    assert loss.item() < first


def test_an_affine_scale_cannot_explode_and_keeps_a_gradient():
    """exp of a free log-scale overflows; a hard clamp stops learning."""
    transformer = snflow.AffineTransformer()
    h = torch.tensor([[[1e6]], [[0.0]]], requires_grad=True)
    assert transformer(torch.ones(1, 1), h)[0].item() <= math.exp(5.0) + 1e-9
    modest = torch.tensor([[[8.0]], [[0.0]]], requires_grad=True)
    transformer(torch.ones(1, 1), modest)[1].sum().backward()
    assert modest.grad[0].item() > 0.1


def test_forward_maps_data_to_latents():
    """Elsewhere forward means sampling in one class and density in the next."""
    flow = flows.maf(2, layers=1, width=8)
    x = torch.randn(4, 2)
    z, log_det = flow.bijection(x)
    normal = torch.distributions.Normal(0.0, 1.0).log_prob(z).sum(1)
    torch.testing.assert_close(flow.log_prob(x), normal + log_det)


def test_a_learned_inverse_that_has_drifted_is_detected():
    """A learned inverse drifts away from W⁻¹ under fast training; its residual shows it."""
    layer = snflow.SelfNormalizingDense(4)
    sound = float(layer.inverse_residual((4,)))
    with torch.no_grad():
        layer.weight.mul_(3.0)
    assert float(layer.inverse_residual((4,))) > 1 > 0.5 > sound


def test_a_singular_matrix_is_an_error_that_names_it():
    """slogdet of a singular matrix is −inf, and training goes on with it."""
    layer = snflow.Dense(3).eval()
    with torch.no_grad():
        layer.weight.zero_()
    with pytest.raises(SnflowError, match="Dense"):
        layer(torch.randn(2, 3))


def test_log_dets_of_single_precision_do_not_drift():
    """Summed in float32 over 784 numbers, a log-determinant was off by 4e-4 nats; in bfloat16 by 0.1."""
    torch.manual_seed(0)
    layer = snflow.Dense(784).float().eval()
    with torch.no_grad():
        layer.weight.add_(0.01 * torch.randn_like(layer.weight))
        exact = torch.linalg.slogdet(layer.weight.double())[1]
        single = layer(torch.zeros(1, 784, dtype=torch.float32))[1]
    assert abs(single.item() - exact.item()) < 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_ends_of_an_image_are_finite(dtype):
    """logit(0) and logit(1) are infinite, and sigmoid(17) is 1 in float32."""
    logit = snflow.Logit()
    x = torch.tensor([[0.0, 1.0, 0.5]], dtype=dtype)
    z, log_det = logit(x)
    assert bool(z.isfinite().all())
    assert bool(log_det.isfinite().all())
    far, log_det = logit.inverse(torch.tensor([[100.0, -100.0, 0.0]], dtype=dtype))
    assert bool(far.isfinite().all())
    assert bool(log_det.isfinite().all())


def test_batch_norm_is_one_map_in_evaluation():
    """With batch statistics in evaluation a point's density depends on its neighbours."""
    layer = snflow.BatchNorm(3)
    for _ in range(20):
        layer(3 + 2 * torch.randn(64, 3))
    layer.eval()
    x = torch.randn(5, 3)
    torch.testing.assert_close(layer(x)[0][:1], layer(x[:1])[0])
    torch.testing.assert_close(layer.inverse(layer(x)[0])[0], x)


def test_actnorm_is_initialized_once_and_survives_a_constant_channel():
    """A second initialization after loading loses the training; a constant channel divides by zero."""
    layer = snflow.ActNorm(2)
    x = torch.randn(32, 2, 3, 3)
    x[:, 1] = 7.0
    assert bool(layer(x)[0].isfinite().all())
    twin = snflow.ActNorm(2)
    twin.load_state_dict(layer.state_dict())
    other = 10 * torch.randn(32, 2, 3, 3)
    torch.testing.assert_close(twin(other)[0], layer(other)[0])


def test_standardization_is_a_layer_that_is_saved():
    """Means and standard deviations kept outside the model are lost on saving, and with them their log-determinant."""
    data = 100 + 5 * torch.randn(200, 3)
    flow = snflow.standardized(flows.maf(3, layers=1, width=8), data)
    twin = snflow.standardized(flows.maf(3, layers=1, width=8), torch.randn(9, 3))
    twin.load_state_dict(flow.state_dict())
    torch.testing.assert_close(twin.log_prob(data), flow.log_prob(data))
    entropy = 3 * (0.5 * math.log(2 * math.pi * math.e) + math.log(5))
    assert abs(flow.log_prob(data).mean().item() + entropy) < 3


def test_a_root_outside_the_bracket_is_found_or_an_error():
    """A bisection that trusts its bracket silently returns its end: off by 29 for a far latent."""
    z = torch.tensor([1e4])
    x = invert_increasing(lambda x: (x, torch.ones_like(x)), z, -torch.ones(1), torch.ones(1))
    torch.testing.assert_close(x, z)
    with pytest.raises(ConvergenceError, match="1 of 1"):
        invert_increasing(lambda x: (x.tanh(), 1 - x.tanh() ** 2), 2 * torch.ones(1), -torch.ones(1), torch.ones(1))
    flow = flows.naf(2, layers=1, width=8, units=4).eval()
    with torch.no_grad():
        far = torch.full((1, 2), 300.0)
        torch.testing.assert_close(flow.encode(flow.decode(far)), far, rtol=1e-6, atol=0)


def test_nothing_is_cached_between_directions():
    """A cached pair (x, z) gives the gradient of another graph."""
    transform = snflow.as_transform(snflow.SmoothLeakyReLU(), (3,))
    x = torch.randn(2, 3, requires_grad=True)
    z = transform(x)
    again = transform.inv(z.detach().requires_grad_())
    assert again is not x
    torch.testing.assert_close(again, x)


class ForgetsFeatures(torch.nn.Module):
    """Its log-determinant is that of one feature."""

    def forward(self, x):
        return 2 * x, torch.full((len(x),), 2.0, dtype=x.dtype).log()

    def back(self, z):
        return z / 2, -torch.full((len(z),), 2.0, dtype=z.dtype).log()


def test_the_public_checks_find_a_wrong_log_det_in_a_foreign_layer():
    report = check(ForeignLayer(ForgetsFeatures(), "forward", "back", (3,)), (3,))
    assert report["round_trip"] == "ok"
    assert report["log_det"].startswith("ContractError: log_det")


def test_a_foreign_layer_may_be_given_by_functions_and_take_a_context():
    layer = ForeignLayer(
        torch.nn.Linear(2, 3),
        lambda net, x, c: (x + net(c), x.new_zeros(len(x))),
        lambda net, z, c: (z - net(c), z.new_zeros(len(z))),
        (3,),
        context_shape=2,
    )
    report = check(layer, (3,))
    assert {name for name, found in report.items() if found != "ok"} <= {"state"}  # a lambda cannot be pickled
