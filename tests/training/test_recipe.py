"""Recipes: strict YAML, typed options, the way there and back."""

import os
import random

import pytest

from snflow.errors import ConfigError
from snflow.train.options import TrainingOptions
from snflow.train.recipe import Recipe, available_recipes, load_recipe
from snflow.train.strict_yaml import read_yaml
from snflow.train.typed import conform, field_meanings, field_types


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1e5", 100000.0),
        ("1.5E+2", 150.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-3", -3),
        ("0", 0),
        ("no", "no"),
        ("off", "off"),
        ("Yes", "Yes"),
        ("True", "True"),
        ("true", True),
        ("012", "012"),
        ("3:20", "3:20"),
        ("1_000", "1_000"),
        ("2021-01-01", "2021-01-01"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1e-3'", "1e-3"),
        ("[1, 2.0]", [1, 2.0]),
    ],
)
def test_scalars_are_what_they_look_like(text, value):
    read = read_yaml(f"key: {text}", "here")["key"]
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", r"here, line 3: expected each key once, got 'a' a second time"),
        ("a:\n  b: 1\n  b: 2", r"line 3: expected each key once, got 'b'"),
        ("1: 2", r"line 1: expected a word as key, got 1"),
        ("a: !!python/object/apply:os.system [ls]", r"line 1: expected YAML"),
        ("a: [1", r"expected YAML"),
        ("- a", r"expected a mapping .* got list"),
        ("", r"expected a mapping .* got nothing"),
        ("a: \x00", r"expected YAML"),
        ("a: " + "[" * 5000, r"expected YAML"),
    ],
)
def test_broken_yaml_is_refused_with_its_line(text, message):
    with pytest.raises(ConfigError, match=message):
        read_yaml(text, "here")


def test_reading_strictly_leaves_pyyaml_alone():
    import yaml

    assert yaml.safe_load("a: no\nb: 1e-3") == {"a": False, "b": "1e-3"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainin": {}}, r"trainin: expected a key of a recipe, .* did you mean 'training'\?"),
        ({"training": {"epoch": 3}}, r"training\.epoch: .* did you mean 'epochs'\?"),
        ({"flow": {"name": "conv", "kernel": 3}}, r"flow\.kernel: .* did you mean 'kernel_size'\?"),
        ({"flow": {"name": "convv"}}, r"flow\.name: expected a registered name, got 'convv'; did you mean 'conv'\?"),
        ({"flow": {}}, r"flow\.name: expected a registered name, got nothing; known: bnaf, conv, dense"),
        ({"data": {"name": ["digits"]}}, r"data\.name: expected a registered name"),
        ({"data": {"name": "table"}}, r"data\.path: expected text, got nothing"),
        ({"data": {"name": "digits", "train": 0}}, r"data\.train: expected a whole number above 0, got 0"),
        ({"training": {"epochs": 3.0}}, r"training\.epochs: expected a whole number, got 3\.0"),
        ({"training": {"epochs": "3"}}, r"training\.epochs: expected a whole number, got '3'"),
        ({"training": {"epochs": True}}, r"training\.epochs: expected a whole number, got True"),
        ({"training": {"epochs": None}}, r"training\.epochs: expected a whole number, got None"),
        ({"training": {"epochs": 0}}, r"training\.epochs: expected a whole number of at least 1, got 0"),
        ({"training": {"ema_decay": 1}}, r"training\.ema_decay: expected a number in \(0, 1\), or null"),
        ({"training": {"on_nonfinite": "no"}}, r"expected one of 'stop', 'skip', got 'no'"),
        ({"training": 3}, r"training: expected a mapping of options, got 3"),
        ({"optimizer": {"learning_rate": float("nan")}}, r"optimizer\.learning_rate: expected a number, got nan"),
        ({"optimizer": {"learning_rate": float("inf")}}, r"expected a finite number above 0"),
        ({"optimizer": {"betas": [0.9]}}, r"expected a list of 2: a number, a number, got \[0\.9\]"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, r"expected two numbers in \[0, 1\)"),
        ({"schedule": {"warmup_epochs": -1}}, r"schedule\.warmup_epochs: expected a finite number of at least 0"),
        ({"description": 3}, r"description: expected text"),
    ],
)
def test_wrong_options_are_refused_by_their_path(changes, message):
    content = {"data": {"name": "digits"}, "flow": {"name": "conv"}} | changes
    with pytest.raises(ConfigError, match="file, .*" + message):
        Recipe.from_dict(content, "file")


def test_conform_keeps_types_apart():
    assert conform(1, float) == 1.0
    assert type(conform(1, float)) is float
    assert conform([1, "b"], list[int | str]) == [1, "b"]
    with pytest.raises(ValueError, match="whole number"):
        conform(True, int)
    with pytest.raises(ValueError, match="a list"):
        conform("ab", tuple[int, ...])


def test_an_unknown_recipe_gets_the_nearest():
    with pytest.raises(ConfigError, match=r"did you mean 'digits_conv'\?"):
        load_recipe("digit_conv")
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: expected a readable YAML file, got no such file"):
        load_recipe("nowhere.yaml")


@pytest.mark.parametrize("name", available_recipes())
def test_every_recipe_reads_back_from_its_resolved_form(name, tmp_path):
    recipe = load_recipe(name)
    path = tmp_path / "config.yaml"
    path.write_text(recipe.to_yaml())
    assert load_recipe(path) == recipe
    assert load_recipe(path).digest() == recipe.digest()
    assert recipe.description


def test_the_papers_recipes_have_the_papers_hyperparameters():
    for name in ("snf", "exact", "relative"):
        dense = load_recipe(f"mnist_dense_{name}")
        assert (dense.training.epochs, dense.training.batch_size, dense.optimizer.learning_rate) == (6000, 100, 1e-4)
        assert (dense.schedule.warmup_epochs, dense.schedule.decay, dense.flow.layers) == (10, "constant", 2)
        assert dense.flow.log_det_rule == {"snf": "self_normalized"}.get(name, name)
        assert dense.flow.penalty_weight == 1.0
    for name in ("snf", "exact"):
        conv = load_recipe(f"mnist_conv_{name}")
        assert (conv.training.epochs, conv.optimizer.learning_rate, conv.flow.bins) == (1000, 1e-3, 5)
        assert (conv.flow.blocks, conv.flow.layers_per_block, conv.flow.tail_bound) == (3, 3, 10.0)


def test_the_digest_is_of_what_decides_and_of_nothing_else(recipe):
    assert recipe().digest() == recipe(device__accelerator="auto").digest()
    assert recipe().digest() != recipe(training__seed=1).digest()
    assert recipe().digest() != recipe(data__seed=1).digest()


def test_every_option_says_what_it_means(recipe):
    for options in recipe().sections().values():
        assert field_types(type(options)).keys() == field_meanings(type(options)).keys()
    assert "Passes over" in field_meanings(TrainingOptions)["epochs"]


def test_mutated_recipes_give_our_error_or_a_recipe():
    text = load_recipe("digits_conv").to_yaml()
    junk = ["", "\n", "  ", ":", "x", "-", "'", "[", "{", "\t", "&a", "*", "!", "é", "9" * 400]
    draw = random.Random(int(os.environ.get("SNFLOW_FUZZ_SEED", "0")))
    refused = 0
    for _ in range(300):
        letters = list(text)
        for _ in range(draw.randint(1, 4)):
            at = draw.randrange(len(letters))
            letters[at] = draw.choice(junk)
        try:
            Recipe.from_dict(read_yaml("".join(letters), "fuzz"))
        except ConfigError as error:
            refused += "\n" not in str(error)
    assert refused > 100
