"""Reversible chains: the gradients of plain ones, without their memory, and errors that are said."""

import os
import subprocess
import sys
import textwrap

import pytest
import torch

from snflow import (
    ActNorm,
    AffineTransformer,
    BatchNorm,
    Bijection,
    Chain,
    Coupling,
    Dense,
    InvertibleResidual,
    Permutation,
    Reversible,
    SelfNormalizingDense,
    SmoothLeakyReLU,
)
from snflow.bijections.coupling import alternating
from snflow.errors import ConfigError, ConvergenceError, GradientError
from snflow.nets import MLP, LipschitzNet


def couplings(count, features=6, context=None, width=16):
    layers = []
    for number in range(count):
        mask = alternating(features, number % 2)
        kept = features // 2
        layers += [
            ActNorm(features, vectors=True),
            Coupling(
                mask,
                AffineTransformer(),
                MLP(kept, 2 * kept, width=width, depth=2, context_shape=context),
                context_shape=context,
            ),
            Permutation.reversed(features),
        ]
    return layers


def gradients(chain, x, context=None):
    x = x.clone().requires_grad_()
    given = None if context is None else context.clone().requires_grad_()
    z, log_det = chain(x, given)
    loss = (0.5 * z.square().sum(1) - log_det).mean()
    wanted = [x, *([] if given is None else [given]), *chain.parameters()]
    return torch.autograd.grad(loss, wanted)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("context", [None, 3])
def test_gradients_are_those_of_the_plain_chain(dtype, context):
    torch.manual_seed(0)
    layers = Chain(couplings(16, context=context)).to(dtype)
    x = torch.randn(20, 6, dtype=dtype)
    given = torch.randn(20, context, dtype=dtype) if context else None
    layers(x, given)  # the act-norms' first batch
    reversible = Reversible(layers)
    for mine, plain in zip(gradients(reversible, x, given), gradients(layers, x, given), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-5, atol=1e-5 if dtype == torch.float32 else 1e-10)
    assert 0 < float(reversible.reconstruction_error) < (1e-4 if dtype == torch.float32 else 1e-12)


def test_gradients_through_the_inverse_are_those_of_the_plain_chain():
    torch.manual_seed(1)
    chain = Chain(couplings(8)).eval()
    z = torch.randn(9, 6, requires_grad=True)

    def through(direction):
        x, log_det = direction(z)
        return torch.autograd.grad((x.square().sum(1) + log_det).mean(), [z, *chain.parameters()], allow_unused=True)

    for mine, plain in zip(through(Reversible(chain).inverse), through(chain.inverse), strict=True):
        torch.testing.assert_close(
            torch.zeros(()) if mine is None else mine, torch.zeros(()) if plain is None else plain
        )


def test_random_numbers_are_drawn_again_as_they_were():
    torch.manual_seed(2)
    chain = Chain([InvertibleResidual(LipschitzNet((5,), width=8), (5,), log_det="unbiased") for _ in range(3)])
    x = torch.randn(7, 5)
    chain(x)  # one power iteration for this weight, before both
    torch.manual_seed(3)
    plain = gradients(chain, x)
    after = torch.rand(())
    torch.manual_seed(3)
    mine = gradients(Reversible(chain), x)
    assert torch.equal(torch.rand(()), after)  # and the generator stands where it stood
    for a, b in zip(mine, plain, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("way", ["exact", "refined"])
def test_self_normalizing_layers_go_back_exactly(way):
    torch.manual_seed(4)
    chain = Chain([SelfNormalizingDense(8), SmoothLeakyReLU(), SelfNormalizingDense(8)])
    x = torch.randn(10, 8)
    reversible = Reversible(chain, inverse=way)
    for mine, plain in zip(gradients(reversible, x), gradients(chain, x), strict=True):
        torch.testing.assert_close(mine, plain, rtol=1e-6, atol=1e-8)


def test_a_learned_inverse_states_what_it_costs():
    """The gradient's relative error is of the size of the reconstruction error that the layer reports."""
    torch.manual_seed(5)
    chain = Chain([SelfNormalizingDense(8), SmoothLeakyReLU(), SelfNormalizingDense(8)])
    with torch.no_grad():
        for layer in (chain[0], chain[2]):
            layer.inverse_matrix.copy_(torch.linalg.inv(layer.weight))
    x = torch.randn(200, 8)
    plain = torch.cat([g.flatten() for g in gradients(chain, x)])
    errors = []
    for noise in (0.0, 1e-4, 1e-2):
        with torch.no_grad():
            for layer in (chain[0], chain[2]):
                layer.inverse_weight.add_(noise * torch.randn(8, 8))
        exact = torch.cat([g.flatten() for g in gradients(chain, x)])
        reversible = Reversible(chain, inverse="learned")
        mine = torch.cat([g.flatten() for g in gradients(reversible, x)])
        errors.append((float(reversible.reconstruction_error), float((mine - exact).norm() / exact.norm())))
    assert plain.isfinite().all()
    assert max(errors[0]) < 1e-9
    assert errors[0][0] < errors[1][0] < errors[2][0]
    for reconstruction, gradient in errors[1:]:
        assert 0.01 * reconstruction < gradient < 10 * reconstruction


class _Forgetful(Bijection):
    """Its inverse forgets the shift."""

    def _forward(self, x, context):
        return x + 1, x.new_zeros(len(x))

    def _inverse(self, z, context):
        return z, z.new_zeros(len(z))


def test_second_derivatives_are_refused():
    layers = couplings(2)
    x = torch.randn(5, 6, requires_grad=True)
    layers[0](x.detach())  # the act-norm's first batch
    (slope,) = torch.autograd.grad(Reversible(layers)(x)[1].sum(), x, create_graph=True)
    with pytest.raises(GradientError, match="use a Chain"):
        slope.square().sum().backward()


def test_an_input_that_is_not_found_again_is_an_error():
    chain = Reversible([Dense(4), _Forgetful(), Dense(4)])
    z, log_det = chain(torch.randn(50, 4))
    with pytest.raises(ConvergenceError, match=r"recovered within 0\.001"):
        (z.sum() + log_det.sum()).backward()


def test_batch_normalization_is_refused():
    """In training it looks right whatever comes back: what its moments are is what it removes."""
    with pytest.raises(ConfigError, match="BatchNorm"):
        Reversible([Dense(4), BatchNorm(4), Dense(4)])


def test_a_layer_without_an_inverse_is_refused():
    layer = Dense(3)
    layer.has_inverse = False
    with pytest.raises(ConfigError, match="layers with inverses"):
        Reversible([layer])


PEAK = """
    import os, torch
    from test_reversible import couplings
    from snflow import Chain, Reversible
    def peak():  # of this process alone: getrusage begins at the peak of the one that started it
        return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
    def measured(kind, count):  # kilobytes by which a step's peak stands above weights and gradients
        torch.manual_seed(0)
        layers = Chain(couplings(count, features=64, width=64))
        chain = Reversible(layers) if kind == "reversible" else layers
        def step(rows):
            z, log_det = chain(torch.randn(rows, 64))
            (0.5 * z.square().sum(1) - log_det).mean().backward()
        step(100)  # act-norms that begin with two rows may scale by anything
        before = peak()
        step(2500)
        print(peak() - before, flush=True)
    for case in (("reversible", 4), ("reversible", 32), ("plain", 32)):
        if not os.fork():  # each in a process of its own, all after one import
            measured(*case)
            os._exit(0)
        os.wait()
"""


def test_peak_memory_does_not_grow_with_depth():
    # a freed tensor goes back to the system at once: what is measured is what lives, not how the heap is cut up
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    place = __file__.rsplit("/", 1)[0]
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PEAK)],
        capture_output=True,
        text=True,
        check=True,
        cwd=place,
        env=environment,
    )
    shallow, deep, plain = map(int, done.stdout.split())
    assert deep < 1.5 * shallow
    assert plain > 4 * deep
