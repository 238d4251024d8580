"""The estimators of scikit-learn: its own checks, exact densities, columns of every kind."""

import inspect
import math
import pickle

import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.special import log_softmax, ndtr
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

import snflow
from snflow import FlowClassifier, FlowDensity, FlowRegressor
from snflow.errors import ArgumentError, ConfigError, DataError, DataWarning, DtypeError
from snflow.interop.scikit_learn import _ClassStandardization

TINY = {"flow": "realnvp", "flow_options": {"layers": 1, "width": 4}, "epochs": 2, "batch_size": 64}
SMALL = {"flow": "realnvp", "flow_options": {"layers": 2, "width": 8}, "epochs": 4, "batch_size": 64, "random_state": 0}
LINE = {"flow": "maf", "flow_options": {"layers": 1, "width": 32, "depth": 1}, "epochs": 15, "learning_rate": 0.03}
LINE |= {"batch_size": 64}


def checks():
    """Those of ``check_estimator``, without that of other array libraries, which needs an environment variable."""
    for estimator in (FlowDensity(**TINY), FlowClassifier(**TINY), FlowRegressor(**LINE)):
        for own, check in estimator_checks_generator(estimator):
            if check.func.__name__ != "check_array_api_input":
                yield pytest.param(own, check, id=f"{type(estimator).__name__}-{check.func.__name__}")


@pytest.mark.filterwarnings("ignore::snflow.errors.DataWarning")
@pytest.mark.parametrize(("estimator", "check"), list(checks()))
def test_the_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.fixture
def x():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 2))
    x[:, 1] += x[:, 0] ** 2
    return x


@pytest.fixture
def columns():
    rng = np.random.default_rng(0)
    return {
        "real": rng.normal(size=200),
        "count": rng.integers(3, 8, 200),
        "colour": rng.choice(["red", "blue", "green"], 200),
        "flag": rng.random(200) < 0.3,
    }


def pandas_frame(columns):
    return pd.DataFrame(columns).astype({"colour": "category"})


def polars_frame(columns):
    return pl.DataFrame(columns).with_columns(pl.col("colour").cast(pl.Categorical))


FRAMES = pytest.mark.parametrize("frame", [pandas_frame, polars_frame])


@pytest.mark.parametrize("kind", [FlowDensity, FlowClassifier, FlowRegressor])
def test_the_options_of_fit_are_options_of_every_estimator(kind):
    options = inspect.signature(kind).parameters
    for name, option in inspect.signature(snflow.fit).parameters.items():
        if name in ("epochs", "batch_size", "learning_rate", "patience", "optimizer", "schedule", "compile", "device"):
            assert options[name].default == option.default
    assert set(kind().get_params()) == set(options)
    described = kind.__doc__.partition("\nRaises:\n")[0]
    assert all(f"\n    {name}: " in described for name in options)
    with pytest.raises(ArgumentError, match="did you mean 'epochs'"):
        kind(epoch=3)


def test_training_options_reach_the_training(x):
    with pytest.raises(ConfigError, match="clip_norm"):
        FlowDensity(**SMALL, training_options={"clip_norm": -1.0}).fit(x)


def test_scores_are_the_log_density_in_float64(x):
    model = FlowDensity(**SMALL).fit(x)
    assert model.flow_.base.dtype == torch.float64
    scores = model.score_samples(x)
    assert np.array_equal(scores, model.flow_.log_prob(torch.from_numpy(x)).detach().numpy())
    assert model.score(x) == scores.mean()
    np.testing.assert_allclose(model.score_samples(x[:7]), scores[:7], atol=1e-12)
    side = np.linspace(-12, 20, 200)
    grid = np.stack(np.meshgrid(side, side), -1).reshape(-1, 2)
    assert np.exp(model.score_samples(grid)).sum() * (side[1] - side[0]) ** 2 == pytest.approx(1, abs=0.01)


def test_a_change_of_units_changes_scores_by_its_determinant(x):
    one, other = FlowDensity(**SMALL).fit(x), FlowDensity(**SMALL).fit(x * [1000, 0.5])
    np.testing.assert_allclose(other.score_samples(x * [1000, 0.5]), one.score_samples(x) - math.log(500), atol=1e-4)
    assert other.report_.validation_nll == pytest.approx(one.report_.validation_nll + math.log(500), abs=1e-4)
    first, second = (model.report_.history[-1]["objective"] for model in (one, other))
    assert second == pytest.approx(first + math.log(500), abs=1e-4)


def test_seconds_since_1970_keep_their_digits(x):
    one, other = FlowDensity(**SMALL).fit(x), FlowDensity(**SMALL).fit(x + 1.7e9)
    np.testing.assert_allclose(other.score_samples(x + 1.7e9), one.score_samples(x), atol=0.02)
    assert len(np.unique(other.sample(50)[:, 0])) == 50


def test_the_share_of_outliers_is_the_contamination(x):
    model = FlowDensity(**SMALL, contamination=0.1).fit(x)
    assert (model.predict(x) == -1).mean() == pytest.approx(0.1, abs=0.01)
    assert (model.fit_predict(x) == model.predict(x)).all()
    assert model.predict([[0, 0.5], [50, -50]]).tolist() == [1, -1]
    with pytest.raises(ConfigError, match=r"0 < contamination ≤ 0\.5, got 0\.7"):
        FlowDensity(contamination=0.7).fit(x)


def test_flows_on_bounded_data_and_flows_of_your_own(x):
    angles = np.remainder(x, 2 * np.pi) - np.pi
    model = FlowDensity("circular_spline", flow_options={"layers": 2, "width": 8}, epochs=1).fit(angles)
    np.testing.assert_allclose(model.score_samples(angles), model.score_samples(angles - 2 * np.pi), atol=1e-9)
    own = FlowDensity(lambda features: snflow.flows.maf(features, layers=1), epochs=1).fit(x)
    assert own.sample(3).shape == (3, 2)
    with pytest.raises(ConfigError, match="did you mean 'maf'"):
        FlowDensity("mav").fit(x)
    with pytest.raises(ConfigError, match="flow to make a Flow, got int"):
        FlowDensity(lambda features: features).fit(x)


def test_scores_of_integers_are_log_probabilities():
    counts = np.random.default_rng(0).poisson(3.0, size=(300, 1))
    options = {"layers": 1, "bins": 16}
    model = FlowDensity(flow_options=options, epochs=40, learning_rate=0.03, random_state=0).fit(counts)
    mass = np.exp(model.score_samples(np.arange(-30, 60)[:, None]))
    assert mass.sum() == pytest.approx(1, abs=0.01)
    shares = np.bincount(counts[:, 0], minlength=8)[:8] / 300
    assert abs(mass[30:38] - shares).sum() < 0.3
    sample = model.sample(100)
    assert sample.dtype == counts.dtype
    assert sample.min() >= 0
    listed = clone(model).set_params(integers=[0]).fit(counts.astype(float))
    assert np.array_equal(listed.score_samples(counts), model.score_samples(counts))


@FRAMES
def test_samples_of_frames_have_their_columns_dtypes_and_labels(frame, columns):
    table = frame(columns)
    model = FlowDensity(**SMALL).fit(table)
    assert model.feature_names_in_.tolist() == list(columns)
    sample = model.sample(50)
    assert type(sample) is type(table)
    assert [str(dtype) for dtype in sample.dtypes] == [str(dtype) for dtype in table.dtypes]
    assert set(sample["colour"]) <= {"red", "blue", "green"}
    assert set(sample["count"]) <= set(range(3, 8))
    assert np.array_equal(np.asarray(model.sample(50)["real"]), np.asarray(sample["real"]))
    assert not np.array_equal(np.asarray(model.sample(50, random_state=1)["real"]), np.asarray(sample["real"]))
    assert np.isfinite(model.score_samples(table)).all()


@FRAMES
def test_missing_values_are_named_or_dropped(frame, columns):
    full, gaps = frame(columns), {name: values.astype(object) for name, values in columns.items()}
    gaps["count"][[1, 4]] = gaps["colour"][4] = None
    table = pd.DataFrame(gaps) if frame is pandas_frame else pl.DataFrame({k: v.tolist() for k, v in gaps.items()})
    if frame is pandas_frame:
        table = table.astype({"real": float, "count": "Int64", "flag": bool})
    with pytest.raises(DataError, match=r"NaN in columns 'count' \(2\), 'colour' \(1\); impute them, or .*'drop'"):
        FlowDensity(**SMALL).fit(table)
    with pytest.warns(DataWarning, match="2 of 200 rows left out"):
        model = FlowDensity(**SMALL, missing="drop").fit(table)
    assert [column.kind for column in model.columns_.columns] == ["real", "integer", "category", "category"]
    with pytest.raises(DataError, match="no missing values"):
        model.score_samples(table)
    assert np.isfinite(model.score_samples(full)).all()
    target = np.arange(200.0)
    with pytest.warns(DataWarning, match="2 of 200 rows left out"):
        assert FlowRegressor(**LINE, missing="drop").fit(table, target).predict(full).shape == (200,)


def test_lists_of_numbers_and_labels_are_tables():
    rows = [["red", 0.5, 1], ["blue", 1.5, 2], ["red", 2.7, 2]] * 10
    model = FlowDensity(**SMALL, integers=[2]).fit(rows)
    assert [column.kind for column in model.columns_.columns] == ["category", "real", "integer"]
    assert {type(value) for value in model.sample(5)[:, 0]} == {str}


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"colour": ["pink"] * 3}, DataError, "column 'colour': expected one of the 3 labels .* got 'pink'"),
        ({"count": [3.5, 4, 5]}, DataError, "column 'count': expected integers .* got 3.5"),
        ({"real": [np.inf, 1, 2]}, DataError, "column 'real': expected finite numbers, got inf in row 0"),
        ({"real": np.array([{}, 1.0, 2.0], dtype=object)}, DtypeError, "column 'real': .* not 'dict'"),
        ({"real": np.array(["2020-01-01"] * 3, dtype="M8[ns]")}, DataError, "column 'real': .* such as seconds"),
    ],
)
def test_tables_that_differ_from_the_training_data_are_refused(columns, change, kind, message):
    model = FlowDensity(**SMALL).fit(pandas_frame(columns))
    table = pd.DataFrame({name: values[:3] for name, values in columns.items()} | change)
    with pytest.raises(kind, match=message):
        model.score_samples(table)


@pytest.mark.parametrize(
    ("table", "options", "kind", "message"),
    [
        (pd.DataFrame(np.ones((4, 2)), columns=["a", "a"]), {}, DataError, "different names, got 'a'"),
        (np.array([["1"], ["2"]] * 3), {}, DataError, "numbers written as text, such as '1'.* list it in categories"),
        (np.ones((4, 2)), {"integers": [2]}, ConfigError, "the name or the number of a column, got 2"),
        (pd.DataFrame({"age": [1.5, 2.5]}), {"categories": ["aeg"]}, ConfigError, "did you mean 'age'"),
        (np.array([[np.nan], [1.0]]), {"missing": "drop"}, DataError, "at least 2 complete rows, got 1"),
        (np.ones((4, 2)), {"missing": "dorp"}, ConfigError, "did you mean 'drop'"),
    ],
)
def test_unclear_tables_are_refused(table, options, kind, message):
    with pytest.raises(kind, match=message):
        FlowDensity(**options).fit(table)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: np.full(len(x), 3.5), "constant: '2'; .* leave them out"),
        (lambda x: 5 - 2 * x[:, 0], "equal up to scale and shift: '0' and '2'"),
        (lambda x: np.round(10 * x[:, 0]), "whole numbers of a floating dtype: '2'; .* integers"),
    ],
)
def test_columns_without_a_density_give_a_warning(x, change, message):
    with pytest.warns(DataWarning, match=message):
        FlowDensity(**SMALL).fit(np.column_stack([x, change(x)]))


def test_seeds_decide_and_the_generators_are_left_alone(x):
    state = torch.get_rng_state()
    one, same, other = (FlowDensity(**SMALL | {"random_state": seed}).fit(x).score_samples(x) for seed in (0, 0, 1))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)
    assert torch.equal(torch.get_rng_state(), state)


def test_pipelines_grids_clones_and_pickles(x, tmp_path):
    pipeline = make_pipeline(StandardScaler(), FlowDensity(**SMALL))
    search = GridSearchCV(pipeline, {"flowdensity__flow": ["realnvp", "maf"]}, cv=2).fit(x)
    assert search.best_params_["flowdensity__flow"] in ("realnvp", "maf")
    model = FlowDensity(**SMALL).fit(x)
    assert np.array_equal(pickle.loads(pickle.dumps(model)).score_samples(x), model.score_samples(x))
    assert np.array_equal(clone(model).fit(x).score_samples(x), model.score_samples(x))
    snflow.save(model.flow_, tmp_path / "flow.safetensors")
    loaded = snflow.load(tmp_path / "flow.safetensors")
    assert np.array_equal(loaded.log_prob(torch.from_numpy(x)).detach().numpy(), model.score_samples(x))


def test_the_classifier_is_bayes_rule(tmp_path):
    x, y = load_iris(return_X_y=True)
    names = np.array(["setosa", "versicolor", "virginica"])[y]
    model = FlowClassifier(**SMALL).fit(x, names)
    assert model.score(x, names) > 0.9
    snflow.save(model.flow_, tmp_path / "flow.safetensors")
    flow = snflow.load(tmp_path / "flow.safetensors")
    rows, each = torch.from_numpy(x), torch.eye(3)
    joint = torch.stack([flow.log_prob(rows, one.expand(150, 3)) for one in each], 1).detach().numpy()
    np.testing.assert_allclose(model.predict_log_proba(x), log_softmax(joint, 1), atol=1e-9)
    np.testing.assert_allclose(model.score_samples(x), np.log(np.exp(joint).mean(1)), atol=1e-9)


def test_priors_are_shares_equal_or_given():
    x, y = load_iris(return_X_y=True)
    x, y = x[40:], y[40:]
    models = [FlowClassifier(**SMALL, priors=p).fit(x, y) for p in ("empirical", "uniform", [0.0, 0.5, 0.5])]
    np.testing.assert_allclose(models[0].priors_, [10 / 110, 50 / 110, 50 / 110])
    ratio = models[0].predict_log_proba(x) - models[1].predict_log_proba(x)
    np.testing.assert_allclose(ratio[:, 1] - ratio[:, 0], math.log(5), atol=1e-9)
    assert (models[2].predict_proba(x)[:, 0] == 0).all()
    with pytest.raises(ConfigError, match="3 probabilities with sum 1"):
        FlowClassifier(priors=[0.5, 0.5]).fit(x, y)


def test_each_class_is_standardized_by_itself():
    z, labels = torch.randn(60, 3), torch.arange(60) % 2
    z[labels == 1] = 5 + 0.3 * z[labels == 1]
    layer, context = _ClassStandardization.of(z, labels), torch.eye(2)[labels]
    y, log_det = layer(z, context)
    for label in (0, 1):
        torch.testing.assert_close(y[labels == label].mean(0), torch.zeros(3))
        torch.testing.assert_close(y[labels == label].std(0, correction=0), torch.ones(3))
    torch.testing.assert_close(layer.inverse(y, context), (z, -log_det))
    jacobian = torch.autograd.functional.jacobian(lambda row: layer(row[None], context[:1])[0][0], z[0])
    torch.testing.assert_close(torch.linalg.slogdet(jacobian).logabsdet, log_det[0])


@pytest.fixture(scope="module")
def regression():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 2))
    y = 3 * x[:, 0] + np.exp(0.5 * x[:, 1]) * rng.normal(size=500)
    x.flags.writeable = y.flags.writeable = False  # as columns of data frames are
    return x, y, FlowRegressor(**LINE | {"epochs": 40}, random_state=0).fit(x, y)


def test_regression_finds_mean_and_spread(regression):
    x, y, model = regression
    assert model.score(x, y) > 0.8
    assert model.log_prob(x, y).mean() > -2.1
    np.testing.assert_allclose(model.predict([[0, 0], [1, 0]]), [0, 3], atol=0.4)
    low, high = model.interval(x, 0.8).T
    assert ((low < y) & (y < high)).mean() == pytest.approx(0.8, abs=0.05)
    assert np.corrcoef(np.log(high - low), x[:, 1])[0, 1] > 0.9


def test_mean_quantiles_and_density_are_those_of_the_flow(regression):
    x, _, model = regression
    x = x[:5].copy()
    q = [0.1, 0.5, 0.975]
    quantiles = model.quantiles(x, q)
    z = [model.flow_.encode(torch.from_numpy(y[:, None]), torch.from_numpy(x)).detach().numpy() for y in quantiles.T]
    increasing = (quantiles[0, 0] < quantiles[0, 1]) == (z[0][0] < z[1][0])
    np.testing.assert_allclose(ndtr(np.concatenate(z, 1) * (1 if increasing else -1)), np.tile(q, (5, 1)), atol=1e-9)
    assert (np.diff(quantiles) > 0).all()
    assert np.array_equal(model.quantiles(x, 0.5), quantiles[:, 1])
    grid = np.linspace(-40, 40, 4001)
    density = np.exp([model.log_prob(np.tile(row, (4001, 1)), grid) for row in x])
    np.testing.assert_allclose(density.sum(1) * 0.02, 1, atol=1e-3)
    np.testing.assert_allclose((density @ grid) * 0.02, model.predict(x), atol=1e-2)
    draws = model.sample(x, 4000, random_state=0)
    assert draws.shape == (5, 4000)
    np.testing.assert_allclose(draws.mean(1), model.predict(x), atol=0.3)
    with pytest.raises(ConfigError, match="0 < q < 1"):
        model.quantiles(x, [0.5, 1.0])


def test_integer_targets_have_probabilities():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 1))
    y = rng.poisson(np.exp(1 + 0.3 * x[:, 0]))
    model = FlowRegressor(**LINE | {"epochs": 40}, random_state=0).fit(x, y)
    k = np.arange(-20, 60)
    mass = np.exp(model.log_prob(np.zeros((80, 1)), k))
    assert mass.sum() == pytest.approx(1, abs=0.01)
    assert model.predict([[0.0]])[0] == pytest.approx(mass @ k, abs=0.05)
    assert model.predict([[0.0]])[0] == pytest.approx(math.e, abs=0.5)
    assert np.array_equal(model.quantiles(x, [0.5]), np.floor(model.quantiles(x, [0.5])))
    with pytest.raises(DataError, match="integers as y"):
        model.log_prob(x[:1], [0.5])


def test_categories_are_contexts(columns):
    table = pandas_frame(columns)
    shift = {"red": -5.0, "green": 0.0, "blue": 5.0}
    y = np.array([shift[colour] for colour in columns["colour"]]) + 0.5 * columns["real"]
    model = FlowRegressor(**LINE | {"epochs": 40}, random_state=0).fit(table, y)
    assert model.score(table, y) > 0.95


def test_a_regression_needs_a_normal_base(x):
    def flow(features, context_shape):
        return snflow.with_base(snflow.flows.maf(features, context_shape=context_shape, layers=1), "logistic")

    with pytest.raises(ConfigError, match="a standard normal base"):
        FlowRegressor(flow, epochs=1).fit(x[:, :1], x[:, 1])
