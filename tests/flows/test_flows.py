"""Ready flows: the registry, the layers of the paper's models, options, gradients, contexts."""

import inspect
from pathlib import Path

import pytest
import torch

import snflow
from snflow import flows, layer_diagnostics
from snflow.bijections.convolution.conv2d import Conv2d
from snflow.bijections.elementwise import Affine, Elementwise, LeakyReLU, Logit, SmoothLeakyReLU
from snflow.bijections.linear import Dense
from snflow.bijections.reshaping import Flatten, Squeeze
from snflow.errors import ConfigError, ShapeError
from snflow.flows._composition import split_docstring
from snflow.selfnorm.layers import SelfNormalizingConv2d, SelfNormalizingDense
from snflow.train.recipe import available_recipes, read_yaml

READY = sorted(flows.ready_flows())
RECIPES = available_recipes()
DOCS = Path(__file__).parents[2] / "docs" / "flows.md"


def kinds(flow):
    return [type(layer) for layer in flow.bijection]


def events_of(function):
    """What a ready flow takes, found by building it."""
    try:
        function(2)
    except ShapeError:
        return "images"
    layers = function((1, 4, 4)).bijection
    return "vectors" if isinstance(layers[0], Flatten) else "vectors, images"


def overview():
    """The table of docs/flows.md: each ready flow with its events, whether it takes a context, and its recipes."""
    rows = ["| flow | events | context | recipes |", "|---|---|---|---|"]
    uses = {name: read_yaml(path.read_text(encoding="utf-8"), name)["flow"]["name"] for name, path in RECIPES.items()}
    for name, function in sorted(flows.ready_flows().items()):
        context = "yes" if "context_shape" in inspect.signature(function).parameters else "no"
        recipes = ", ".join(f"`{recipe}`" for recipe, flow in uses.items() if flow == name)
        rows.append(f"| `{name}` | {events_of(function)} | {context} | {recipes or '—'} |")
    return "\n".join(rows)


def test_the_table_of_the_docs_is_that_of_the_code():
    table = overview()
    assert table in DOCS.read_text(encoding="utf-8"), f"put this table into docs/flows.md:\n{table}"


def test_the_registry_is_the_stub():
    stub = Path(flows.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    exported = {line.rpartition(" ")[2] for line in stub.splitlines()}
    assert exported == set(READY) | {"ready_flows"}


@pytest.mark.parametrize("name", READY)
def test_no_option_of_preprocessing_or_base_is_one_of_a_flow(name):
    parameters = inspect.signature(flows.ready_flows()[name]).parameters
    around = {*inspect.signature(snflow.preprocess).parameters, *inspect.signature(snflow.dequantized).parameters}
    assert not (around - {"flow"}) & set(parameters)
    assert next(iter(parameters)) == "event_shape"
    assert all(p.kind is p.KEYWORD_ONLY for p in list(parameters.values())[1:])


SMALL_IMAGES = {
    "realnvp": {"width": 8, "depth": 1},
    "glow": {"width": 8, "layers": 1},
    "flowpp": {"width": 8, "depth": 1, "components": 2, "first_layers": 1, "channel_layers": 1, "last_layers": 1},
    "residual": {"width": 8, "layers": 1},
    "densenet": {"growth": 4, "layers": 1},
    "ffjord": {"width": 8, "solver": "rk4", "steps": 4},
    "mintnet": {"groups": 2, "layers": 2},
}


@pytest.mark.parametrize("name", SMALL_IMAGES)
def test_images_may_be_conditioned_on_a_context(name):
    torch.manual_seed(0)
    flow = getattr(flows, name)((1, 4, 4), context_shape=3, **SMALL_IMAGES[name])
    x, context = torch.randn(5, 1, 4, 4), torch.randn(5, 3)
    with torch.no_grad():
        flow.train().log_prob(x, context)  # initializes act-norms
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    flow.eval()
    assert not torch.allclose(flow.log_prob(x, context), flow.log_prob(x, context.flip(0)))
    torch.testing.assert_close(flow.decode(flow.encode(x, context), context), x, rtol=0, atol=1e-3)


@pytest.mark.parametrize("context_shape", [None, 2])
@pytest.mark.parametrize("name", [name for name in READY if name not in ("conv", "glow", "flowpp")])
def test_a_single_feature_has_a_flow(name, context_shape):
    function = flows.ready_flows()[name]
    if context_shape is not None and "context_shape" not in inspect.signature(function).parameters:
        return
    torch.manual_seed(0)
    flow = function(1) if context_shape is None else function(1, context_shape=context_shape)
    x = torch.rand(30, 1)
    context = None if context_shape is None else torch.randn(30, 2)
    with torch.no_grad():
        flow.train().log_prob(x, context)
        flow.eval()
        torch.testing.assert_close(flow.decode(flow.encode(x, context), context), x, rtol=0, atol=1e-3)
        assert flow.log_prob(x, context).isfinite().all()


def test_dense_is_the_papers_two_layer_model():
    flow = snflow.dequantized(flows.dense((1, 28, 28)), 256)
    assert kinds(flow) == [Affine, Logit, Flatten, SelfNormalizingDense, SmoothLeakyReLU, SelfNormalizingDense]
    assert flow.event_shape == (1, 28, 28)


def test_conv_is_the_papers_nine_layer_model():
    flow = snflow.dequantized(flows.conv((1, 28, 28)), 256)
    c, s = SelfNormalizingConv2d, Elementwise
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
def test_log_det_rule_changes_nothing_else(build, rule, kind):
    torch.manual_seed(3)
    flow = build(rule)
    torch.manual_seed(3)
    other = build("self_normalized")
    assert kind in kinds(flow)
    x = torch.randn(5, *flow.event_shape)
    torch.testing.assert_close(flow.eval()(x), other.eval()(x), rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["dense", "conv"])
def test_every_parameter_gets_a_gradient(name):
    flow = snflow.dequantized(getattr(flows, name)((1, 8, 8)), 17)
    (-flow(torch.randint(17, (6, 1, 8, 8))).mean()).backward()
    assert not [n for n, p in flow.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
    assert all(0 <= d.inverse_residual < 0.1 for d in layer_diagnostics(flow).values())
    assert len(layer_diagnostics(flow)) == (2 if name == "dense" else 9)


@pytest.mark.parametrize("method", ["exact", "refined"])
@pytest.mark.parametrize("name", ["dense", "conv"])
def test_decode_inverts_encode(name, method):
    flow = getattr(flows, name)((1, 8, 8)).eval()
    x = torch.randn(3, 1, 8, 8)
    z = flow.encode(x)
    torch.testing.assert_close(flow.decode(z, inverse=method), x, rtol=0, atol=1e-9)


@pytest.mark.parametrize(("word", "kind"), [("leaky_relu", LeakyReLU), ("spline", Elementwise)])
def test_activation_by_name(word, kind):
    assert kind in kinds(flows.dense((3,), activation=word))


# torch's own tracer instantiates the autograd functions that it traces
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize("name", ["dense", "conv"])
def test_training_compiles_as_one_graph_once_the_log_dets_are_known(name):
    flow = snflow.dequantized(
        getattr(flows, name)((1, 4, 4), **({"scales": 2, "layers": 1} if name == "conv" else {})), 17
    )
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
        (lambda: flows.dense((3,), layrs=2), ConfigError, "got layrs=; did you mean 'layers'"),
        (lambda: flows.maf(3, contxt_shape=2), TypeError, "did you mean 'context_shape'"),
        (lambda: flows.maf(), TypeError, "missing a required argument"),
    ],
)
def test_wrong_options_are_named(build, kind, message):
    with pytest.raises(kind, match=message):
        build()


NO_SHAPES = [0, -1, 2.5, 4.0, "4", None, True, (), (0,), (3, 0, 8), (2.0,), torch.tensor(4), [None]]


@pytest.mark.parametrize("shape", NO_SHAPES, ids=repr)
@pytest.mark.parametrize("name", READY)
def test_wrong_event_shapes_are_refused(name, shape):
    with pytest.raises((ConfigError, ShapeError), match=rf"flows\.{name}: expected .*got"):
        getattr(flows, name)(shape)


@pytest.mark.parametrize("shape", [4, (4,), [4], torch.Size([4]), tuple(torch.tensor([4]).numpy())])
def test_an_int_or_a_shape_for_vectors(shape):
    for flow in (flows.dense(shape), flows.maf(shape, layers=1, width=4), flows.realnvp(shape, layers=2, width=4)):
        assert flow.event_shape == (4,)
        assert flow.eval().sample(3).shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "option", "default"),
    [
        ("neural_spline", "mixing", "lu"),
        ("nice", "layers", 4),
        ("glow", "kernel_size", 1),
        ("conv", "kernel_size", 3),
        ("ffjord", "act_norm", False),
        ("maf", "mixing", "reverse"),
    ],
)
def test_a_flow_keeps_its_own_defaults_and_inherits_the_others(name, option, default):
    function = flows.ready_flows()[name]
    assert inspect.signature(function).parameters[option].default == default
    assert f"\n    {option}: " in function.__doc__


@pytest.mark.parametrize("rotation", ["random", "pca"])
def test_gaussianization_built_in_single_precision_is_inverted_to_double_precision(rotation):
    x = torch.randn(500, 4).exp()
    torch.set_default_dtype(torch.float32)
    flow = snflow.preprocess(flows.gaussianization(4, rotation=rotation).double(), x).eval()
    with torch.no_grad():
        z, log_det = flow.bijection(x)
        back, log_det_back = flow.bijection.inverse(z)
    torch.testing.assert_close(back, x, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(log_det_back, -log_det, rtol=0, atol=1e-10)


def test_docstrings_are_split_with_and_without_the_indentation_that_python_3_13_removes():
    indented = "z = x.\n\n    Args:\n        a: One.\n        b: Two\n            lines.\n\n    Returns:\n        z."
    expected = (
        "z = x.\n\nArgs:\n",
        {"a": "    a: One.\n", "b": "    b: Two\n        lines.\n"},
        "\nReturns:\n    z.\n",
    )
    assert split_docstring(indented) == split_docstring(inspect.cleandoc(indented)) == expected
