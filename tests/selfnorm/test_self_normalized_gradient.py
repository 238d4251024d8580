"""The self-normalized gradient three ways: the paper's formulas written out, dense autograd, and the exact gradient."""

import pytest
import torch
from torch.nn import functional

from snflow import Penalty, SelfNormalizingConv2d, SelfNormalizingDense
from snflow.numerics.operators.conv import ConvOperator
from snflow.numerics.operators.dense import DenseOperator, TransposedDenseOperator

SCALINGS = {"nats": 1.0, "bits/dim": 1 / (5 * 0.6931471805599453), "× 1024": 1024.0}
DENSE_SHAPES = [(1, 1), (7, 5), (3, 16)]
CONV_SHAPES = [(7, 2, 3, 4, 5), (3, 1, 5, 6, 6), (2, 3, 1, 3, 4), (4, 2, 3, 2, 2), (2, 2, 5, 2, 3)]


def close(got, wanted, tolerance=1e-10):
    assert got.shape == wanted.shape
    assert (got - wanted).abs().max() <= tolerance * wanted.abs().max().clamp_min(1e-300)


def shaken(layer, scale=0.1):
    """Move W, R and b apart, so that R is not W⁻¹ and nothing holds by accident."""
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter += scale * torch.randn_like(parameter)
    return layer


def nonlinear_loss(z, log_det, scaling):
    """A loss whose ∂L/∂z and c_b = ∂L/∂log_det differ from sample to sample, also in sign."""
    row_weights = torch.linspace(-0.5, 2.0, len(z))
    nll = (z.square() + 0.3 * z.sin()).flatten(1).sum(1) - log_det
    return scaling * (row_weights * nll).mean()


def upstream(layer, x, scaling):
    """δz, c and the pieces that the formulas speak of, by autograd on z and log_det alone."""
    z, log_det = layer(x)
    z, log_det = z.detach().requires_grad_(), log_det.detach().requires_grad_()
    return torch.autograd.grad(nonlinear_loss(z, log_det, scaling), (z, log_det))


def dense_formula(layer, x, delta, c, weight_penalty, symmetric, only_inverse):
    """Eq. 10–11 and A.1, with the penalty by autograd on its plain definition."""
    w, r = layer.weight.detach(), layer.inverse_matrix.detach()
    s = x @ w.T
    grad_w = 0.5 * sum(torch.outer(d, v) for d, v in zip(delta, x, strict=True)) + 0.5 * c.sum() * r.T
    grad_r = -0.5 * sum(torch.outer(w.T @ d, v) for d, v in zip(delta, s, strict=True)) - 0.5 * c.sum() * w.T
    w, r = w.clone().requires_grad_(), r.clone().requires_grad_()
    penalty = weight_penalty * (c.abs() * ((x @ w.T @ r.T) - x).square().sum(1)).sum()
    if symmetric:
        s = x @ w.T if symmetric == "through" else s
        penalty = penalty + weight_penalty * (c.abs() * ((s @ r.T @ w.T) - s).square().sum(1)).sum()
    if symmetric == "through":
        penalty = penalty / 2
    from_w, from_r = torch.autograd.grad(penalty, (w, r))
    # The layer keeps R by its transpose.
    return grad_w + (0 if only_inverse else from_w), (grad_r + from_r).T, delta @ w.detach(), delta.sum(0)


def conv_formula(layer, x, delta, c, weight_penalty, symmetric, only_inverse):
    """Eq. 15–16 and A.2, by loops over taps and pixels for the likelihood and autograd for the penalty."""
    w, r = layer.weight.detach(), layer.inverse_weight.detach()
    k, (height, width) = w.shape[-1], x.shape[2:]
    p = k // 2
    s = functional.conv2d(x, w, padding=p)
    delta_x = functional.conv_transpose2d(delta, w, padding=p)

    def correlate(inputs, outputs):
        padded = functional.pad(inputs, (p, p, p, p))
        taps = torch.zeros_like(w)
        for a in range(k):
            for b in range(k):
                taps[:, :, a, b] = torch.einsum("nohw,nihw->oi", outputs, padded[:, :, a : a + height, b : b + width])
        return taps

    ones = functional.pad(torch.ones(1, 1, height, width), (p, p, p, p))
    m = torch.stack([ones[0, 0, a : a + height, b : b + width].sum() for a in range(k) for b in range(k)]).view(k, k)
    grad_w = 0.5 * correlate(x, delta) + 0.5 * c.sum() * r.flip(2, 3).transpose(0, 1) * m
    grad_r = -0.5 * correlate(s, delta_x) - 0.5 * c.sum() * w.flip(2, 3).transpose(0, 1) * m
    w, r = w.clone().requires_grad_(), r.clone().requires_grad_()

    def cycle(first, second, start):
        there = functional.conv2d(start, first, padding=p)
        return (functional.conv2d(there, second, padding=p) - start).square().flatten(1).sum(1)

    penalty = weight_penalty * (c.abs() * cycle(w, r, x)).sum()
    if symmetric:
        s = functional.conv2d(x, w, padding=p) if symmetric == "through" else s
        penalty = penalty + weight_penalty * (c.abs() * cycle(r, w, s)).sum()
    if symmetric == "through":
        penalty = penalty / 2
    from_w, from_r = torch.autograd.grad(penalty, (w, r))
    return grad_w + (0 if only_inverse else from_w), grad_r + from_r, delta_x, delta.sum((0, 2, 3))


OPTIONS = [
    (1.0, False, False),
    (0.0, False, False),
    (30.0, True, False),
    (2.0, False, True),
    (2.0, True, True),
    (3.0, "through", False),
    (2.0, "through", True),
]


def check_against(formula, layer, x, penalty, symmetric, only_inverse, scaling):
    delta, c = upstream(layer, x, scaling)
    x = x.clone().requires_grad_()
    nonlinear_loss(*layer(x), scaling).backward()
    wanted = formula(layer, x.detach(), delta, c, penalty, symmetric, only_inverse)
    close(layer.weight.grad, wanted[0])
    close(layer.inverse_weight.grad, wanted[1])
    close(x.grad, wanted[2])
    if layer.bias is not None:
        close(layer.bias.grad, wanted[3])


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("penalty", "symmetric", "only_inverse"), OPTIONS)
@pytest.mark.parametrize(("batch", "features"), DENSE_SHAPES)
def test_dense_gradient_is_the_written_out_formula(batch, features, penalty, symmetric, only_inverse, bias, scaling):
    layer = SelfNormalizingDense(
        features,
        bias=bias,
        tracking=Penalty(weight=penalty, symmetric=symmetric, on_inverse_only=only_inverse),
    )
    x = torch.randn(batch, features)
    check_against(dense_formula, shaken(layer), x, penalty, symmetric, only_inverse, scaling)


@pytest.mark.parametrize("scaling", SCALINGS.values(), ids=SCALINGS)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("penalty", "symmetric", "only_inverse"), OPTIONS)
@pytest.mark.parametrize(("batch", "channels", "kernel", "height", "width"), CONV_SHAPES)
def test_conv_gradient_is_the_written_out_formula(
    batch, channels, kernel, height, width, penalty, symmetric, only_inverse, bias, scaling
):
    layer = SelfNormalizingConv2d(
        channels,
        kernel,
        bias=bias,
        tracking=Penalty(weight=penalty, symmetric=symmetric, on_inverse_only=only_inverse),
    )
    x = torch.randn(batch, channels, height, width)
    check_against(conv_formula, shaken(layer), x, penalty, symmetric, only_inverse, scaling)


@pytest.mark.parametrize(("kernel", "height", "width"), [(1, 3, 4), (3, 4, 5), (3, 1, 2), (5, 2, 3), (5, 1, 3)])
def test_conv_log_det_terms_are_the_gradient_of_the_trace_of_dense_matrices(kernel, height, width):
    """∂⟨T(w), T(r)ᵀ⟩ by autodiff through matrices that are built from unit images, not by our own construction."""
    operator, shape = ConvOperator(kernel), (2, height, width)
    w = torch.randn(2, 2, kernel, kernel, requires_grad=True)
    r = torch.randn(2, 2, kernel, kernel, requires_grad=True)
    units = torch.eye(2 * height * width).view(-1, *shape)
    t_w, t_r = (functional.conv2d(units, v, padding=kernel // 2).flatten(1).T for v in (w, r))
    by_w, by_r = torch.autograd.grad((t_w * t_r.T).sum(), (w, r))
    close(operator.trace_gradient(r.detach(), shape), by_w)
    close(operator.trace_gradient(w.detach(), shape), by_r)


@pytest.mark.parametrize(("kernel", "height", "width"), [(3, 4, 5), (3, 1, 2), (5, 2, 3)])
def test_conv_matrix_is_the_convolution(kernel, height, width):
    operator, shape = ConvOperator(kernel), (2, height, width)
    w, x = torch.randn(2, 2, kernel, kernel), torch.randn(3, *shape)
    matrix = operator.block(w, shape)
    close((x.flatten(1) @ matrix.T).view_as(x), operator.product(w, x))
    close((x.flatten(1) @ matrix).view_as(x), operator.transposed_product(w, x))
    close(operator.block(operator.transpose(w), shape), matrix.T)


def test_multiplicity_is_a_convolution_of_ones():
    ones = torch.ones(1, 1, 4, 5)
    counted = functional.conv2d(ones, ones, padding=1)
    assert torch.equal(ConvOperator(3).multiplicity(torch.zeros(()), (1, 4, 5)), counted[0, 0])


def test_pointwise_multiplicity_is_the_number_of_pixels():
    assert ConvOperator(1).multiplicity(torch.zeros(()), (2, 4, 5)).item() == 20


def test_dense_gradient_with_the_true_inverse_is_half_the_exact_one():
    """Eq. 8: with R = W⁻¹ both halves of the objective agree, and W gets one of them."""
    layer = shaken(SelfNormalizingDense(6))
    with torch.no_grad():
        layer.inverse_matrix.copy_(torch.linalg.inv(layer.weight))
    x = torch.randn(9, 6)
    nonlinear_loss(*layer(x), 1.0).backward()
    half = layer.weight.grad.clone()
    layer.zero_grad()
    layer.eval()
    nonlinear_loss(*layer(x), 1.0).backward()
    close(2 * half, layer.weight.grad)


def test_dense_trace_terms_and_products_are_those_of_the_matrices():
    operator, inverse = DenseOperator(), TransposedDenseOperator()
    w, r = torch.randn(4, 4, requires_grad=True), torch.randn(4, 4, requires_grad=True)
    units = torch.eye(4)
    matrices = [each.product(weight, units).T for each, weight in ((operator, w), (inverse, r))]
    by_w, by_r = torch.autograd.grad((matrices[0] @ matrices[1]).trace(), (w, r))
    close(operator.trace_gradient(r.detach(), (4,)), by_w)
    close(inverse.trace_gradient(w.detach(), (4,)), by_r)
    for each, weight, matrix in ((operator, w, matrices[0]), (inverse, r, matrices[1])):
        x, v, into = torch.randn(3, 4), torch.randn(3, 4), torch.randn(4, 4)
        close(each.transposed_product(weight, v), v @ matrix)
        close(each.transposed_product(weight, v, x, 0.5), v @ matrix + 0.5 * x)
        close(each.product(weight, x, v, -2.0), x @ matrix.T - 2 * v)
        close(each.block(weight, (4,)), matrix)
        close(each.factor(weight, (4,), "").solve(x), torch.linalg.solve(matrix, x.T).T)
        close(each.product(each.transpose(weight), x), x @ matrix)
        (wanted,) = torch.autograd.grad((each.product(weight, x) * v).sum(), weight)
        close(each.weight_gradient(weight, x, v), wanted)
        close(each.from_matrices(each.matrices(weight)), weight)
        other = torch.randn(4, 4)
        wanted = into - 0.3 * each.trace_gradient(other, (4,))
        each.add_trace_gradient(into, other, torch.tensor(-0.3), (4,))
        close(into, wanted)
    of_inverse = operator.matrices(torch.linalg.inv(inverse.block(r, (4,))))
    close(of_inverse @ inverse.matrices(r), torch.eye(4)[None])


def test_bias_of_the_gradient_falls_linearly_with_the_error_of_the_inverse():
    layer = shaken(SelfNormalizingDense(5, tracking=Penalty(weight=0.0)))
    x, direction = torch.randn(8, 5), torch.randn(5, 5)
    inverse = torch.linalg.inv(layer.weight.detach())

    def gradient(size):
        with torch.no_grad():
            layer.inverse_matrix.copy_(inverse + size * direction)
        layer.zero_grad()
        nonlinear_loss(*layer(x), 1.0).backward()
        return layer.weight.grad.clone()

    exact = gradient(0.0)
    large, small = ((gradient(size) - exact).norm() for size in (1e-2, 1e-3))
    assert large / small == pytest.approx(10, rel=1e-6)


def test_gradient_accumulation_adds_up():
    layer = shaken(SelfNormalizingDense(4))
    x = torch.randn(6, 4)

    def loss(rows):
        z, log_det = layer(rows)
        return (z.square().sum(1) - log_det).sum() / 6

    loss(x).backward()
    whole = layer.weight.grad.clone(), layer.inverse_weight.grad.clone()
    layer.zero_grad()
    for part in x.split(2):
        loss(part).backward()
    close(layer.weight.grad, whole[0])
    close(layer.inverse_weight.grad, whole[1])


@pytest.mark.parametrize("build", [lambda: SelfNormalizingDense(4), lambda: SelfNormalizingConv2d(2)])
def test_a_frozen_inverse_gets_no_gradient_and_the_rest_is_unchanged(build):
    layer = shaken(build())
    x = torch.randn(5, 4) if isinstance(layer, SelfNormalizingDense) else torch.randn(5, 2, 3, 3)
    nonlinear_loss(*layer(x), 1.0).backward()
    wanted = layer.weight.grad.clone()
    layer.zero_grad()
    layer.inverse_weight.requires_grad_(False)
    nonlinear_loss(*layer(x), 1.0).backward()
    assert layer.inverse_weight.grad is None
    assert torch.equal(layer.weight.grad, wanted)


def test_first_weights_are_those_of_the_paper():
    dense, rotated = SelfNormalizingDense(50), SelfNormalizingDense(50, initialization="orthogonal")
    noise = dense.weight - torch.eye(50)
    assert noise.std().item() == pytest.approx(0.01 * (2 / 100) ** 0.5, rel=0.1)
    assert torch.equal(dense.inverse_matrix, dense.weight.T)
    assert torch.equal(SelfNormalizingDense(5, initialization="exact_identity").weight, torch.eye(5))
    close(rotated.weight @ rotated.inverse_matrix, torch.eye(50), 1e-12)
    conv, pointwise = SelfNormalizingConv2d(8), SelfNormalizingConv2d(8, 1)
    assert torch.equal(conv.inverse_weight, conv.weight.flip(2, 3).transpose(0, 1))
    assert (conv.weight[:, :, 1, 1] - torch.eye(8)).abs().max() < 0.01
    close(pointwise.weight[:, :, 0, 0] @ pointwise.inverse_weight[:, :, 0, 0], torch.eye(8), 1e-12)


# torch's own tracer instantiates the autograd function that it traces
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
def test_dense_layer_compiles_whole():
    layer = shaken(SelfNormalizingDense(4))
    x = torch.randn(5, 4)
    nonlinear_loss(*layer(x), 1.0).backward()
    wanted = layer.weight.grad.clone()
    layer.zero_grad()
    compiled = torch.compile(layer, backend="aot_eager", fullgraph=True)
    nonlinear_loss(*compiled(x), 1.0).backward()
    close(layer.weight.grad, wanted)
