"""The ready flows: their layers are the paper's, their options agree with the recipes', their gradients are whole."""

import inspect
from dataclasses import asdict, fields

import pytest
import torch

from snflow import flows, layer_diagnostics
from snflow.bijections.convolution.conv2d import Conv2d
from snflow.bijections.elementwise import Affine, LeakyReLU, Logit, RationalQuadraticSpline, SmoothLeakyReLU
from snflow.bijections.linear import Dense
from snflow.bijections.reshaping import Flatten, Squeeze
from snflow.data import Dataset
from snflow.distributions.base import DiagonalNormal, Logistic, StandardNormal
from snflow.errors import ConfigError, ShapeError
from snflow.flows.options import FLOWS, ConvOptions, DenseOptions
from snflow.selfnorm.layers import SelfNormalizingConv2d, SelfNormalizingDense
from snflow.selfnorm.options import LearnedInverse, LearnedInverseArguments

FIXED = {"event_shape", "features", "context_shape", "quantized", "preprocessing"}


def kinds(flow):
    return [type(layer) for layer in flow.bijection]


def test_dense_is_the_papers_two_layer_model():
    flow = flows.dense((1, 28, 28), quantized=256)
    assert kinds(flow) == [Affine, Logit, Flatten, SelfNormalizingDense, SmoothLeakyReLU, SelfNormalizingDense]
    assert flow.event_shape == (1, 28, 28)


def test_conv_is_the_papers_nine_layer_model():
    flow = flows.conv((1, 28, 28), quantized=256)
    c, s = SelfNormalizingConv2d, RationalQuadraticSpline
    wanted = [Affine, Logit, c, s, c, s, c, s, Squeeze, c, s, c, s, c, s, Squeeze, c, s, c, s, c]
    assert kinds(flow) == wanted
    assert flow.base.event_shape == (16, 7, 7)
    assert sum(p.numel() for p in flow.parameters()) > 0


@pytest.mark.parametrize(
    ("build", "rule", "kind"),
    [
        (lambda rule: flows.dense((4,), log_det_rule=rule), "exact", Dense),
        (lambda rule: flows.dense((4,), log_det_rule=rule), "relative", Dense),
        (lambda rule: flows.dense((4,), log_det_rule=rule), "self_normalized", SelfNormalizingDense),
        (lambda rule: flows.conv((1, 4, 4), log_det_rule=rule), "exact", Conv2d),
        (lambda rule: flows.conv((1, 4, 4), log_det_rule=rule), "self_normalized", SelfNormalizingConv2d),
    ],
)
def test_one_word_switches_the_rule_and_nothing_else(build, rule, kind):
    torch.manual_seed(3)
    flow = build(rule)
    torch.manual_seed(3)
    other = build("self_normalized")
    assert kind in kinds(flow)
    x = torch.randn(5, *flow.event_shape)
    torch.testing.assert_close(flow.eval()(x), other.eval()(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize(("name", "function"), [(name, getattr(flows, name)) for name in FLOWS])
def test_options_of_the_recipe_are_those_of_the_function(name, function):
    parameters = inspect.signature(function).parameters
    own = {k: p.default for k, p in parameters.items() if k not in FIXED}
    if "learned" in own:  # the keyword arguments of a learned inverse, in one place for all
        own |= asdict(LearnedInverse())
        del own["learned"]
    assert own == asdict(FLOWS[name]())
    assert {f.name: f.type for f in fields(FLOWS[name])}.keys() == own.keys()


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_every_parameter_gets_a_gradient(name):
    flow = getattr(flows, name)((1, 8, 8), quantized=17)
    (-flow(torch.randint(17, (6, 1, 8, 8))).mean()).backward()
    assert not [n for n, p in flow.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert all(0 <= d.inverse_residual < 0.1 for d in layer_diagnostics(flow).values())
    assert len(layer_diagnostics(flow)) == (2 if name == "dense" else 9)


@pytest.mark.parametrize("method", ["exact", "refined"])
@pytest.mark.parametrize("name", ["dense", "conv"])
def test_flows_come_back(name, method):
    flow = getattr(flows, name)((1, 8, 8)).eval()
    x = torch.randn(3, 1, 8, 8)
    z = flow.encode(x)
    torch.testing.assert_close(flow.decode(z, inverse=method), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("word", "kind"), [("normal", StandardNormal), ("diagonal_normal", DiagonalNormal), ("logistic", Logistic)]
)
def test_base_by_name(word, kind):
    assert isinstance(flows.dense((3,), base=word).base, kind)


@pytest.mark.parametrize(("word", "kind"), [("leaky_relu", LeakyReLU), ("spline", RationalQuadraticSpline)])
def test_activation_by_name(word, kind):
    assert kind in kinds(flows.dense((3,), activation=word))


def test_build_standardises_continuous_data_and_keeps_their_likelihood():
    train = 5 + 100 * torch.randn(400, 3, dtype=torch.float32)
    dataset = Dataset(name="x", train=train, validation=train, test=train, num_values=None)
    flow = flows.build(DenseOptions(layers=1), dataset).float().eval()
    with torch.no_grad():
        flow.bijection[2].weight.copy_(torch.eye(3))
        z = flow.encode(train)
    assert z.mean().abs() < 1e-5
    assert abs(z.std() - 1) < 0.01
    gaussian = torch.distributions.Normal(train.mean(0), train.std(0, correction=0))
    torch.testing.assert_close(flow(train), gaussian.log_prob(train).sum(1), rtol=0, atol=1e-3)


def test_build_gives_levels_their_dequantization():
    images = torch.zeros(9, 1, 4, 4, dtype=torch.uint8)
    dataset = Dataset(name="x", train=images, validation=images, test=images, num_values=17)
    flow = flows.build(ConvOptions(blocks=2, layers_per_block=1), dataset)
    assert flow.dequantization.num_values == 17
    assert flow.sample(2).shape == (2, 1, 4, 4)


# torch's own tracer instantiates the autograd functions that it traces
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["dense", "conv"])
def test_training_compiles_as_one_graph_once_the_log_dets_are_known(name):
    flow = getattr(flows, name)((1, 4, 4), quantized=17, **({"blocks": 2} if name == "conv" else {}))
    x = torch.randint(17, (3, 1, 4, 4))
    torch.manual_seed(1)
    wanted = flow(x)
    compiled = torch.compile(flow, backend="aot_eager", fullgraph=True)
    torch.manual_seed(1)
    got = compiled(x)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=0)
    got.mean().backward()
    assert all(p.grad is not None for p in flow.parameters())
    for batch in (5, 7):  # from the second size on the tracer takes the batch for a variable
        x = torch.randint(17, (batch, 1, 4, 4))
        torch.manual_seed(1)
        wanted = flow(x)
        torch.manual_seed(1)
        torch.testing.assert_close(compiled(x), wanted, rtol=1e-12, atol=0)


def test_density_in_two_dimensions_integrates_to_one():
    flow = flows.dense((2,), layers=3, activation="spline").eval()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    side = torch.linspace(-12, 12, 601)
    grid = torch.cartesian_prod(side, side)
    with torch.no_grad():
        mass = flow(grid).exp().sum() * (side[1] - side[0]) ** 2
    assert abs(mass - 1) < 1e-3


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (
            lambda: flows.conv((64,)),
            ShapeError,
            r"expected images, \(channels, height, width\), got \(64,\); use flows.d",
        ),
        (lambda: flows.conv((1, 7, 7)), ShapeError, "Squeeze"),
        (lambda: flows.conv((1, 8, 8), kernel_size=2), ConfigError, "odd kernel_size"),
        (lambda: flows.conv((1, 8, 8), log_det_rule="relative"), ConfigError, "log_det_rule to be one of"),
        (lambda: flows.dense((3,), layers=0), ConfigError, "layers ≥ 1"),
        (lambda: flows.dense((3,), activation="relu"), ConfigError, "did you mean 'leaky_relu'"),
        (lambda: flows.dense((3,), base="gauss"), ConfigError, "base to be one of"),
    ],
)
def test_wrong_options_are_named(build, kind, message):
    with pytest.raises(kind, match=message):
        build()


def test_arguments_of_a_learned_inverse_are_its_fields():
    assert LearnedInverseArguments.__annotations__.keys() == {field.name for field in fields(LearnedInverse)}


NO_SHAPES = [0, -1, 2.5, 4.0, "4", None, True, (), (0,), (3, 0, 8), (2.0,), torch.tensor(4), [None]]


@pytest.mark.parametrize("shape", NO_SHAPES, ids=repr)
@pytest.mark.parametrize("name", sorted(set(flows.__all__) & set(FLOWS)))
def test_what_is_no_event_shape_gets_our_own_error(name, shape):
    with pytest.raises((ConfigError, ShapeError), match=rf"flows\.{name}: expected .*got"):
        getattr(flows, name)(shape)


@pytest.mark.parametrize("shape", [4, (4,), [4], torch.Size([4]), tuple(torch.tensor([4]).numpy())])
def test_vectors_are_asked_for_by_a_number_or_a_shape(shape):
    for flow in (flows.dense(shape), flows.maf(shape, layers=1, width=4), flows.realnvp(shape, layers=2, width=4)):
        assert flow.event_shape == (4,)
        assert flow.sample(3).shape == (3, 4)
