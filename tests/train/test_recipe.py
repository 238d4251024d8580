"""Recipes: strict YAML, typed options, the way there and back."""

import datetime
import os

import pytest

from cli.mutations import check_mutation
from snflow.errors import ConfigError
from snflow.train.recipe import Recipe, available_recipes, load_recipe, parser_of, read_yaml


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
        ("true", True),
        ("3:20", "3:20"),
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
        ("a: 1\nb: 2\na: 3", r'here, line 3: expected YAML, got found duplicate key "a"'),
        ("a:\n  b: 1\n  b: 2", r'line 3: expected YAML, got found duplicate key "b"'),
        ("1: 2", r"expected a mapping with the keys data, flow"),
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


ENDLESS = [0]
ENDLESS.append(ENDLESS)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainin": {}}, r"trainin: expected a section of a recipe, .* did you mean 'training'\?"),
        ({"training": {"epoch": 3}}, r"training\.epoch: .* did you mean 'epochs'\?"),
        ({"flow": {"name": "conv", "kernel": 3}}, r"flow\.kernel: .* did you mean 'kernel_size'\?"),
        ({"flow": {"name": "convv"}}, r"flow\.name: expected a known name, got 'convv'; did you mean 'conv'\?"),
        ({"flow": {}}, r"flow\.name: expected a known name, got nothing; known: bnaf, "),
        ({"data": {"name": ["digits"]}}, r"data\.name: expected a known name"),
        ({"data": {"name": "table"}}, r"data\.path"),
        ({"training": {"epochs": 3.0}}, r"training\.epochs: expected an integer, got '3\.0'"),
        ({"training": {"epochs": True}}, r"training\.epochs: expected an integer, got 'True'"),
        ({"training": {"epochs": None}}, r"training\.epochs: expected an integer, got null"),
        ({"training": {"epochs": 0}}, r"training\.epochs: expected an integer of at least 1, got 0"),
        ({"training": {"ema_decay": 1}}, r"training\.ema_decay: expected a number in \(0, 1\), or null"),
        ({"training": {"on_nonfinite": "no"}}, r"expected one of 'stop', 'skip', got 'no'"),
        ({"training": 3}, r"training: expected a mapping of options, got 3"),
        ({"optimizer": {"learning_rate": float("nan")}}, r"\.learning_rate: expected a finite number, got nan"),
        ({"optimizer": {"learning_rate": float("inf")}}, r"\.learning_rate: expected a finite number, got inf"),
        ({"optimizer": {"learning_rate": 0}}, r"optimizer\.learning_rate: expected a finite number above 0, got 0"),
        ({"optimizer": {"learning_rate": 10**400}}, r"learning_rate: expected an integer of 64 bits, got an int"),
        ({"optimizer": {"eps": float("inf")}}, r"optimizer\.eps: expected a finite number, got inf"),
        ({"optimizer": {"weight_decay": float("inf")}}, r"optimizer\.weight_decay: expected a finite number, got inf"),
        ({"flow": {"name": "conv", "layers": 10**5000}}, r"flow\.layers: expected an integer of 64 bits"),
        ({"data": {"name": "digits", "seed": 2**64}}, r"data\.seed: expected an integer of 64 bits, got 18446744"),
        ({"flow": {"name": "conv", "layers": datetime.date(2026, 1, 2)}}, r"flow\.layers: expected a number, text"),
        ({"flow": {"name": "conv", 3: 4}}, r"flow: expected names of options, got 3"),
        ({"flow": {"name": "conv", "tracking": ENDLESS}}, r"flow\.tracking: expected at most 8 levels of options"),
        ({"training": {"threads": 100_000}}, r"training\.threads: expected an integer from 1 to 10000, or null"),
        ({"device": {"devices": 10**5}}, r"device\.devices: expected an integer from 1 to 10000"),
        ({"optimizer": {"betas": [0.9]}}, r"expected a list of a number, a number, got '\[0\.9\]'"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, r"expected two numbers in \[0, 1\)"),
        ({"schedule": {"warmup_epochs": -1}}, r"schedule\.warmup_epochs: expected a finite number of at least 0"),
        ({"description": 3}, r"description: expected text"),
    ],
)
def test_wrong_options_are_refused_by_their_path(changes, message):
    content = {"data": {"name": "digits"}, "flow": {"name": "conv"}} | changes
    with pytest.raises(ConfigError, match="file, .*" + message):
        Recipe.from_dict(content, "file")


def test_a_value_out_of_range_is_refused_when_data_and_flow_are_made(recipe):
    with pytest.raises(ConfigError, match="train"):
        recipe(data__train=0).load_dataset()


def test_replace_changes_options_by_dotted_name(recipe):
    changed = recipe().replace({"training.seed": 7, "flow.log_det_rule": "exact"})
    assert (changed.training.seed, changed.flow["log_det_rule"]) == (7, "exact")
    with pytest.raises(ConfigError, match=r"did you mean 'seed'"):
        recipe().replace({"training.sed": 7})


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


def test_the_digest_is_of_what_decides_and_of_nothing_else(recipe):
    assert recipe().digest() == recipe(device__accelerator="auto").digest()
    assert recipe().digest() != recipe(training__seed=1).digest()
    assert recipe().digest() != recipe(data__seed=1).digest()


@pytest.mark.parametrize("name", available_recipes())
def test_every_option_has_a_meaning_in_the_help(name):
    recipe = load_recipe(name)
    for action in parser_of(recipe.data["name"], recipe.flow["name"])._actions:
        assert action.help, f"{action.dest}: add its meaning to the docstring"


def test_mutated_recipes_give_our_error_or_a_recipe():
    first = int(os.environ.get("SNFLOW_FUZZ_SEED", "0"))
    assert 20 < sum(check_mutation(seed) for seed in range(first, first + 40)) < 38
