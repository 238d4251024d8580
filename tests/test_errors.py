"""Errors: from parts or from one message, through pickle and copy; the nearest right keyword."""

import copy
import inspect
import multiprocessing
import pickle

import pytest

import snflow
from snflow.bijections.transformers.affine import AffineTransformer
from snflow.errors import (
    ArgumentError,
    CheckedConstructor,
    ConfigError,
    ShapeError,
    SnflowError,
    check_arguments,
    check_count,
)

PARTS = ("where", "expected", "got", "fix")


@pytest.mark.parametrize("kind", [SnflowError, ShapeError, ArgumentError])
@pytest.mark.parametrize("travel", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_an_error_keeps_its_parts_and_its_message(kind, travel):
    error = kind("Squeeze", expected="an even height", got="7", fix="pad the images")
    error.add_note("in epoch 3")
    twin = travel(error)
    assert type(twin) is kind
    assert str(twin) == str(error) == "Squeeze: expected an even height, got 7; pad the images"
    assert [getattr(twin, part) for part in PARTS] == ["Squeeze", "an even height", "7", "pad the images"]
    assert twin.__notes__ == ["in epoch 3"]


def test_an_error_can_be_built_from_one_message():
    error = ShapeError("in process 3: ShapeError: …")
    assert str(pickle.loads(pickle.dumps(error))) == str(error) == "in process 3: ShapeError: …"
    assert error.expected is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: snflow.nets.MLP(2, 3, widht=8), "MLP.*got widht=; did you mean 'width'?"),
        (lambda: AffineTransformer(largest_scale=3.0), "did you mean 'largest_log_scale'?"),
        (lambda: snflow.Dense(3, bais=False), "Dense.*did you mean 'bias'?"),
        (lambda: snflow.Planar(3, 2), "Planar.*got 2 positional and 0 keyword arguments; too many positional"),
        (lambda: snflow.Planar(), "Planar.*missing a required argument: 'features'"),
    ],
)
def test_wrong_arguments_of_a_constructor(call, message):
    with pytest.raises(ConfigError, match=message) as caught:
        call()
    assert isinstance(caught.value, TypeError)


def test_the_signature_of_a_class_is_that_of_its_constructor():
    assert list(inspect.signature(snflow.nets.MLP).parameters)[:2] == ["features", "outputs"]
    check_arguments("MLP", inspect.signature(snflow.nets.MLP), (2, 3), ["width"])


def test_a_type_error_inside_a_constructor_is_not_hidden():
    class Faulty(metaclass=CheckedConstructor):
        def __init__(self, features):
            self.double = features + None

    with pytest.raises(TypeError, match="NoneType") as caught:
        Faulty(3)
    assert not isinstance(caught.value, SnflowError)


@pytest.mark.parametrize("context_shape", [0, -1, (), (2, 0), 1.5, True])
def test_a_wrong_context_shape(context_shape):
    with pytest.raises(ConfigError, match="context_shape to be"):
        snflow.nets.MLP(2, 3, context_shape=context_shape)


def test_a_network_of_vectors_takes_no_images_as_context():
    with pytest.raises(ConfigError, match="MLP: expected a context vector"):
        snflow.nets.MLP(2, 3, context_shape=(1, 4, 4))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: snflow.flows.maf(2, layers=10**9), r"layers ≤ 1000000, got 1000000000; use a smaller number"),
        (lambda: snflow.nets.MLP(2, 3, width=10**5000), r"width ≤ 1000000, got an integer of 16610 bits"),
        (lambda: snflow.data.toy(train=10**9), r"data\.toy: expected train ≤ 10000000, got 1000000000"),
        (lambda: snflow.data.toy(seed=-1), r"data\.toy: expected seed from 0 to 2\*\*63 - 1, got -1"),
        (lambda: snflow.data.digits(seed=2**64), r"data\.digits: expected seed from 0 to 2\*\*63 - 1"),
    ],
)
def test_a_number_larger_than_can_be_meant_is_refused_at_once(build, message):
    with pytest.raises(ConfigError, match=message):
        build()


def _kinds_of(kind):
    for further in kind.__subclasses__():
        yield further
        yield from _kinds_of(further)


def test_an_error_keeps_its_parts_between_processes():
    # a fresh interpreter, as on systems without fork; the function is one of the library, which imports no torch
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(ConfigError) as caught:
        pool.apply(check_count, ("Dense", "features", 0))
    assert str(caught.value) == "Dense: expected features ≥ 1, got 0; use a positive integer"
    assert [getattr(caught.value, part) for part in PARTS] == ["Dense", "features ≥ 1", "0", "use a positive integer"]


@pytest.mark.parametrize("kind", [SnflowError, *_kinds_of(SnflowError)])
def test_every_error_can_be_built_anew_from_its_message(kind):
    """As Pyro does: ``raise type(error)(f"{error}\\n{shapes}")``."""
    error = kind("Squeeze", expected="an even height", got="7")
    again = type(error)(f"{error}\nTrace Shapes:")
    assert type(again) is kind
    assert str(again) == "Squeeze: expected an even height, got 7\nTrace Shapes:"
    assert str(pickle.loads(pickle.dumps(again))) == str(again)
