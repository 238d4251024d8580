"""Domains and codomains, also of chains: intervals where they are, otherwise sets checked by evaluating the layers."""

import math

import pytest
import torch
from torch.distributions import Exponential, Laplace, Normal, biject_to, constraints

import snflow
from context_layer import ContextScale
from snflow import CDF, Affine, Chain, Dense, Flatten, Flow, Inverse, Logit, Permutation, StandardNormal, Uniform
from snflow.bijections.domain import Mapped, Preimage, bounds, contains, interval, of_events

END = math.log(1e6 - 1)
"""logit(1 − 1e-6)"""


def normal():
    return CDF(Normal(0.0, 1.0))


@pytest.mark.parametrize(
    ("bijection", "domain", "codomain"),
    [
        (Dense(2), (-math.inf, math.inf), (-math.inf, math.inf)),
        (Logit(), (0, 1), (-END, END)),
        (normal(), (-math.inf, math.inf), (0, 1)),
        (CDF(Exponential(2.0)), (0, math.inf), (0, 1)),
        (snflow.Elementwise(snflow.CircularSplineTransformer(), 2), (-math.pi, math.pi), (-math.pi, math.pi)),
        (Inverse(Logit()), (-END, END), (0, 1)),
        (Chain([]), (-math.inf, math.inf), (-math.inf, math.inf)),
        (Chain([Logit(), Dense(2)]), (0, 1), None),
        (Chain([Affine(1.0, 10.0), Logit()]), (1, 11), (-END, END)),
        (Chain([Affine(1.0, -10.0), Logit()]), (-9, 1), (-END, END)),
        (Chain([Inverse(Logit()), Inverse(Affine(1.0, 10.0))]), (-END, END), (1, 11)),
        (Chain([Flatten((1, 2)), Permutation([1, 0]), Logit()]), (0, 1), (-END, END)),
        (Chain([Logit(), Permutation([1, 0]), Flatten(2)]), (0, 1), (-END, END)),
        (Chain([CDF(Laplace(0.0, 1.0)), Inverse(normal())]), (-math.inf, math.inf), (-math.inf, math.inf)),
        (Chain([Dense(2), Logit()]), None, (-END, END)),
        (Chain([Chain([Affine(0.0, 2.0)]), Logit(), Inverse(Logit())]), (0, 2), (0, 1)),
        (snflow.Reversible([Affine(0.0, 2.0), Logit(), Dense(2)]), (0, 2), None),
    ],
)
def test_the_intervals_of_layers_and_of_chains(bijection, domain, codomain):
    for wanted, found in ((domain, bijection.domain), (codomain, bijection.codomain)):
        if wanted is None:
            assert isinstance(found, Preimage)
        else:
            assert bounds(found) == pytest.approx(wanted)


def test_each_element_has_its_own_interval_where_the_scale_has():
    of = Chain([Affine(torch.tensor([0.0, 1.0]), torch.tensor([2.0, -3.0])), Logit()]).domain
    low, high = bounds(of)
    torch.testing.assert_close(low, torch.tensor([0.0, -2.0]))
    torch.testing.assert_close(high, torch.tensor([2.0, 1.0]))
    assert biject_to(of)(torch.randn(5, 2)).shape == (5, 2)


def test_the_contract_is_checked_on_bounded_domains():
    bounded = Chain([Affine(torch.tensor([0.0, 1.0]), torch.tensor([2.0, -3.0])), Logit(1e-3), Dense(2)])

    def inside(*size, dtype):
        return torch.tensor([2.0, -3.0], dtype=dtype) * torch.rand(*size, dtype=dtype) + torch.tensor([0.0, 1.0])

    assert set(snflow.testing.check(bounded, 2, sample=inside).values()) == {"ok"}
    assert "outside" in snflow.testing.check(bounded, 2)["domain"]


def test_a_set_of_events_is_checked_by_mapping_them():
    layers = [Dense(2), Dense(2), Logit(0.1)]
    x = torch.randn(50, 2)
    chain = Chain(layers).eval()
    inside = of_events(chain.domain, 1).check(x.reshape(5, 10, 2)).flatten()
    z = layers[1].encode(layers[0].encode(x))
    assert torch.equal(inside, ((z >= 0) & (z <= 1)).all(1))
    assert 0 < int(inside.sum()) < 50
    # the latents are those of such points
    within = of_events(chain.codomain, 1)
    assert bool(within.check(chain.encode(x[inside])).all())
    assert not bool(within.check(torch.tensor([[9.0, 0.0]])).any())
    assert of_events(chain.domain, 1).check(torch.zeros(0, 2)).shape == (0,)


def test_latents_are_checked_by_mapping_them_back():
    chain = Chain([Logit(0.1), Dense(2)]).eval()
    x = torch.rand(20, 2)
    of = of_events(chain.codomain, 1)
    assert bool(of.check(chain.encode(0.01 + 0.98 * x)).all())
    assert not bool(of.check(10 + chain.encode(x)).any())
    # the same set, from the other side
    assert torch.equal(of_events(Inverse(chain).domain, 1).check(x), of.check(x))


def test_a_context_is_passed_to_the_layers_that_take_one():
    flow = Flow(Chain([Dense(3), ContextScale(), Dense(3)]), Uniform(3, low=-1.0, high=1.0)).eval()
    context, x = torch.randn(4, 1, 2), torch.randn(7, 4, 5, 3) / 2
    inside = flow.distribution(context).support.check(x)
    rows = context.expand(7, 4, 5, 2).reshape(-1, 2)
    wanted = flow.log_prob(x.reshape(-1, 3), rows).isfinite().reshape(7, 4, 5)
    assert torch.equal(inside, wanted)
    assert 0 < int(inside.sum()) < inside.numel()


def test_a_split_leaves_the_channels_that_it_factors_out_unbounded():
    split = snflow.Split((3, 1, 2), Logit(0.1))
    x = torch.full((1, 3, 1, 2), 0.5)
    x[:, 1:] = 9.0
    assert bool(split.domain.check(x).all())
    assert split.domain.check(9 * torch.ones_like(x)).sum() == 4
    assert bool(split.codomain.check(split.encode(x)).all())
    assert snflow.Split((2, 1, 2), snflow.LeakyReLU()).domain is constraints.real
    with pytest.raises(ValueError, match="dependent"):
        snflow.Split((2, 1, 2), Chain([Flatten((1, 1, 2)), Dense(2), Logit()])).domain.check(x)


def test_intervals_are_in_a_form_that_torch_can_map_to():
    for low, high in ((-math.inf, math.inf), (0.0, math.inf), (-math.inf, 2.0), (-1.0, 3.0)):
        assert bool(interval(low, high).check(biject_to(interval(low, high))(10 * torch.randn(100))).all())


def test_one_set_contains_another_only_if_that_is_known():
    assert contains(constraints.real, Mapped(torch.sin, constraints.positive))
    assert not contains(Mapped(torch.sin, constraints.positive), constraints.real)
    assert contains(interval(torch.tensor([0.0, -1.0]), torch.tensor([1.0, 2.0])), constraints.unit_interval)
    assert not contains(interval(torch.tensor([0.0, 0.5]), torch.tensor([1.0, 2.0])), constraints.unit_interval)
    assert not contains(constraints.integer_interval(0, 1), constraints.integer_interval(0, 1))


def test_a_layer_of_any_shape_takes_the_shape_of_the_flow():
    class Mixed(snflow.Bijection):
        """A layer that accepts events of any shape and mixes their elements."""

        def _forward(self, x, context):
            return x.flip(-1), x.new_zeros(len(x))

        def _inverse(self, z, context):
            return z.flip(-1), z.new_zeros(len(z))

    flow = Flow(Chain([Mixed(), Logit()]), StandardNormal((2, 2)))
    assert flow.support.event_dim == 2
    x = torch.tensor([[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.5, 1.5]]])
    assert flow.support.check(x).tolist() == [True, False]
