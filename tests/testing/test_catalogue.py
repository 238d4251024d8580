"""Every layer × every property of the contract."""

import pytest
import torch
from torch.distributions import constraints

from context_layer import ContextScale
from snflow.bijections.base import Bijection
from snflow.bijections.chain import Chain
from snflow.bijections.elementwise import SmoothLeakyReLU
from snflow.bijections.linear import Dense
from snflow.errors import NotInvertibleError
from snflow.testing import CATALOGUE, CHECKS, check
from snflow.testing.cases import bijection_classes, transformer_classes


@pytest.mark.parametrize("property_name", CHECKS)
@pytest.mark.parametrize("name", CATALOGUE)
def test_contract(name, property_name):
    CHECKS[property_name](CATALOGUE[name])


def test_every_layer_is_in_the_catalogue():
    listed = {type(case.build()) for case in CATALOGUE.values()}
    missing = {layer for layer in bijection_classes() if getattr(layer, "__final__", False)} - listed
    assert not missing, f"add these to snflow/testing/cases: {missing}"


def test_every_transformer_is_in_the_catalogue():
    listed = {type(module) for case in CATALOGUE.values() for module in case.build().modules()}
    missing = {kind for kind in transformer_classes() if getattr(kind, "__final__", False)} - listed
    assert not missing, f"add these to snflow/testing/cases: {missing}"


@pytest.mark.parametrize("classes", [bijection_classes(), transformer_classes()], ids=["bijections", "transformers"])
def test_every_class_is_abstract_or_final(classes):
    parents = {parent for layer in classes for parent in layer.__mro__[1:]}
    for layer in classes:
        assert getattr(layer, "__final__", False) != (layer in parents), f"{layer} is neither a parent nor final"


def test_names_begin_with_the_class():
    for name, case in CATALOGUE.items():
        assert name.split(" (")[0] == type(case.build()).__name__


class Broken(Bijection):
    """Each part can be put out of order by itself."""

    event_shape = (3,)

    def __init__(self, fault):
        super().__init__()
        self.fault = fault
        self.scale = torch.nn.Parameter(torch.tensor([0.5, 2.0, 3.0]))

    @property
    def domain(self):
        return constraints.unit_interval if self.fault == "domain" else constraints.real

    def _forward(self, x, context):
        z = x * self.scale
        if self.fault == "rows":
            z = z + x.mean(0)
        if self.fault == "transforms":
            z = z * (1 if bool(x.isfinite().all()) else 2)
        if self.fault == "second_derivatives":  # a slope that is a constant to autograd
            return z, self._log_det(z) + (x.detach() * x).sum(1)
        if self.fault == "single_precision":
            return z.double(), self._log_det(z).double()
        return z, self._log_det(z)

    def __call__(self, x, context=None):
        if self.fault == "autocast":  # past the base class, which would switch autocast off
            return x @ torch.diag(self.scale), self._log_det(x)
        return super().__call__(x, context)

    def _check(self, x, context):
        if self.fault != "refusals":
            super()._check(x, context)

    def _load_from_state_dict(self, *arguments):
        if self.fault != "state":
            super()._load_from_state_dict(*arguments)

    def _log_det(self, z):
        if self.fault == "damaged_weights" and not self.training and not bool(self.scale.all()):
            raise NotInvertibleError("Broken", expected="numbers other than zero", got="zero")
        if self.fault == "shapes":
            return self.scale.abs().log().sum()[None]
        scale = self.scale.detach() if self.fault == "gradients" else self.scale
        return (2 if self.fault == "log_det" else 1) * scale.abs().log().sum().expand(z.shape[0])

    def _inverse(self, z, context):
        return z / (self.scale + (1e-6 if self.fault == "round_trip" else 0)), -self._log_det(z)


@pytest.mark.parametrize("fault", CHECKS)
def test_each_check_finds_its_fault(fault):
    assert set(check(Broken(None), (3,)).values()) == {"ok"}
    assert check(Broken(fault), (3,))[fault] != "ok"


@pytest.mark.parametrize("build", [ContextScale, lambda: Chain([SmoothLeakyReLU(), ContextScale(), Dense(3)])])
def test_the_contract_holds_with_a_context(build):
    assert set(check(build(), (3,)).values()) == {"ok"}


def test_check_reports_instead_of_raising():
    report = check(Dense(3), (4,))
    assert "ShapeError" in report["round_trip"]
