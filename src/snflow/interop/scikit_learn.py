"""Estimators of scikit-learn: densities and outliers, classification and regression by flows."""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, Self, TypeVar, cast, final

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, logsumexp, ndtri
from sklearn.base import BaseEstimator, ClassifierMixin, DensityMixin, OutlierMixin, RegressorMixin
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from snflow.bijections.base import Bijection
from snflow.bijections.chain import Chain
from snflow.bijections.context import ContextEmbedding, Standardization
from snflow.bijections.elementwise import Affine
from snflow.data.columns import Columns, Name, is_frame
from snflow.distributions.base import StandardNormal, Uniform
from snflow.distributions.flow import Flow
from snflow.errors import ConfigError, DataError, DataWarning, check_arguments, check_choice
from snflow.flows import ready_flows
from snflow.flows._composition import split_docstring
from snflow.train import generators
from snflow.train.fitting import FitReport, fit

Missing = Literal["error", "drop"]
"""What to do with rows of the training data in which a value is missing."""

Priors = Literal["empirical", "uniform"]
"""Probabilities of classes: their shares of the training data, or equal ones."""

Floats = NDArray[np.float64]
RandomState = int | np.random.RandomState | None
Kind = TypeVar("Kind", bound="type[FlowEstimator]")

_OPTIONS_OF_FIT = tuple(
    name
    for name, p in inspect.signature(fit).parameters.items()
    if p.kind is p.KEYWORD_ONLY and name not in ("num_values", "embedding_net", "seed", "steps_per_epoch")
)
"""The options of :func:`snflow.fit` that are options of every estimator."""

_SCORED_ROWS = 2000
"""Number of rows that are scored at once."""

_NOISES = 16
"""Number of dequantization noises over which the density of integers is averaged."""

_SMALLEST_SCALE = 1e-12
"""Standard deviation, relative to the magnitude, below which a column counts as constant in float64."""

_SMALLEST_SCALE_OF_CLASS = 0.1
"""Smallest standard deviation of a column within a class, in units of that of the whole column."""

_NODES = np.linspace(-8.0, 8.0, 65)
"""Nodes of the integral of a mean over the normal density, in standard deviations."""


class FlowEstimator(BaseEstimator):
    """What the estimators share: options, tables, training in float32, and evaluation in float64.

    Args:
        flow: Name of a ready flow, such as ``"maf"``, or a function that makes a flow and is called as those are: with
            the number of columns, and ``context_shape=`` for a conditional density.
        flow_options: Options of the flow, such as ``{"layers": 3}``.
        integers: Columns that hold integers though their dtype is floating, by name or number.
        categories: Columns that hold categories though they hold numbers, by name or number. Columns of text, of
            booleans and of dtypes of categories need not be listed.
        missing: What ``fit`` does if values are missing: ``"error"``, which names the columns, or ``"drop"``, which
            leaves out their rows.
        random_state: Seed of the weights, the split, the order of the batches and noise.
        validation: Share of the rows that are held out to choose the best epoch.
        progress: Whether to show progress: a bar on a terminal, lines elsewhere.
        training_options: Further options of :func:`snflow.fit`, such as ``{"weight_decay": 1e-5}``.
    """

    flow: str | Callable[..., Flow]
    flow_options: Mapping[str, Any] | None
    integers: Sequence[Name] | None
    categories: Sequence[Name] | None
    missing: Missing
    random_state: RandomState
    standardize: bool
    validation: float
    training_options: Mapping[str, Any] | None

    columns_: Columns
    report_: FitReport
    seed_: int

    def __init__(
        self,
        flow: str | Callable[..., Flow] = "neural_spline",
        *,
        flow_options: Mapping[str, Any] | None = None,
        integers: Sequence[Name] | None = None,
        categories: Sequence[Name] | None = None,
        missing: Missing = "error",
        random_state: RandomState = None,
        validation: float = 0.1,
        progress: bool = False,
        training_options: Mapping[str, Any] | None = None,
    ) -> None: ...

    @property
    def flow_(self) -> Flow:
        """The fitted flow, in float64, on columns as :attr:`columns_` reads them."""
        return self.report_.flow

    def _read(self, X: Any, *, first: bool = False) -> Floats:
        """The values of a table, checked as scikit-learn does; ``first`` for the training data."""
        name = type(self).__name__
        if not is_frame(X):
            X = check_array(_as_array(X), dtype=None, ensure_all_finite=False, ensure_min_samples=1 + first)
        if first:
            check_choice(name, "missing", self.missing, Missing)
            self.columns_ = Columns.of(name, X, integers=self.integers, categories=self.categories)
        validate_data(self, X, reset=first, skip_check_array=True)
        return self.columns_.read(name, X)

    def _read_complete(self, X: Any) -> Floats:
        """The values of a table to score, none of which may be missing."""
        check_is_fitted(self, "report_")
        values = self._read(X)
        self.columns_.check_complete(type(self).__name__, values, "drop or impute such rows")
        return values

    def _training_rows(self, X: Any) -> tuple[Floats, NDArray[np.bool_]]:
        """The values of the training data without the rows in which one is missing, and which rows are left."""
        values, name = self._read(X, first=True), type(self).__name__
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        if self.missing == "error":
            self.columns_.check_complete(name, values, "impute them, or leave such rows out by missing='drop'")
        complete = np.asarray(~np.isnan(values).any(1))
        if complete.sum() < 2:
            raise DataError(name, expected="at least 2 complete rows", got=f"{complete.sum()} sample")
        if not complete.all():
            left_out = f"{(~complete).sum()} of {len(values)} rows left out, in which a value is missing"
            warnings.warn(f"{name}: {left_out}", DataWarning, 3)
        return values[complete], complete

    def _fit_flow(self, rows: Floats, context: Floats | None = None, labels: NDArray[np.int64] | None = None) -> None:
        """Fit a flow to rows ``(N, D)`` given contexts ``(N, C)``: ``report_``, whose flow takes both as they are.

        They are standardized in float64, so that a large shift, such as that of a time since 1970, costs no digits in
        training, which is in float32. Likelihoods are computed in float64: they do not depend on other rows. With
        labels, of which the contexts are the indicators, each class is standardized by itself.
        """
        x, given = torch.from_numpy(rows), None if context is None else torch.from_numpy(context)
        with generators.preserved():
            generators.seed(self.seed_)
            flow = self._flow(x.shape[1], None if given is None else given.shape[1])
        standardize = self.standardize and not isinstance(flow.base, Uniform)
        outer = Affine.standardizing(x, _SMALLEST_SCALE) if standardize else Affine(torch.zeros(()).to(x), 1.0)
        z, c, embedding = outer.encode(x), given, None
        if labels is not None and standardize:
            flow = Flow(
                Chain([_ClassStandardization.of(z, torch.from_numpy(labels)).float(), flow.bijection]), flow.base
            )
        elif given is not None:
            moments = Affine.standardizing(given, _SMALLEST_SCALE)
            c, embedding = moments.encode(given), Standardization(moments.shift, moments.scale)
        chosen = {name: getattr(self, name) for name in _OPTIONS_OF_FIT}
        chosen |= {"standardize": False, "validation": max(self.validation, 1 / len(rows)), "seed": self.seed_}
        report = fit(flow, z, c, **chosen, **(self.training_options or {}))
        # there is no float64 on Apple's devices
        flow.to("cpu" if flow.base.device.type == "mps" else flow.base.device, torch.float64)
        inner = (
            flow.bijection if embedding is None else ContextEmbedding(flow.bijection, embedding, embedding.mean.shape)
        )
        whole = Flow(Chain([outer, inner]), flow.base).to(flow.base.device).eval()
        self.report_ = _rescaled(replace(report, flow=whole), float(outer.scale.log().sum()))

    def _flow(self, features: int, context_features: int | None) -> Flow:
        """An untrained flow, in float32."""
        make, name = self.flow, type(self).__name__
        if isinstance(make, str):
            known = ready_flows()
            check_choice(name, "flow", make, Literal[tuple(known)])
            make = known[make]
        context = {} if context_features is None else {"context_shape": context_features}
        flow = make(features, **context, **(self.flow_options or {}))
        if not isinstance(flow, Flow):
            raise ConfigError(name, expected="flow to make a Flow", got=type(flow).__name__)
        return flow.float()

    def _noisy(self, values: Floats, discrete: NDArray[np.bool_]) -> Floats:
        """The values to train on: integers and categories with uniform noise of a fixed seed."""
        return values + discrete * np.random.default_rng(self.seed_).random(values.shape)

    def _log_prob(self, values: Floats, discrete: NDArray[np.bool_], context: Floats | None = None) -> Floats:
        """log p(x | context) ``(N,)``; where there are integers k, log 1/S Σₛ p(k + uₛ), with the same uₛ for all rows.

        By Jensen's inequality it is, on average over the noises u, a lower bound on log P(k).
        """
        if not discrete.any():
            return self._log_density(values, context)
        generator = np.random.default_rng(0)
        strata = generator.permuted(np.tile(np.arange(_NOISES)[:, None], values.shape[1]), axis=0)
        noises = (strata + generator.random(strata.shape)) / _NOISES
        each = [self._log_density(values + discrete * noise, context) for noise in noises]
        return cast(Floats, logsumexp(each, axis=0) - math.log(_NOISES))

    @torch.no_grad()
    def _log_density(self, rows: Floats, context: Floats | None) -> Floats:
        with generators.preserved():
            generators.seed(self.seed_)  # of the random vectors of estimated log-determinants
            given = [None] * len(rows) if context is None else self._tensor(context).split(_SCORED_ROWS)
            batches = zip(self._tensor(rows).split(_SCORED_ROWS), given, strict=False)
            return torch.cat([self.flow_.log_prob(x, c) for x, c in batches]).cpu().numpy()

    def _tensor(self, values: Floats) -> Tensor:
        return torch.tensor(values, device=self.flow_.base.device)  # a copy: NumPy's may be read-only

    def _generator(self, random_state: RandomState) -> torch.Generator:
        seed = self.seed_ if random_state is None else int(check_random_state(random_state).randint(2**31 - 1))
        return torch.Generator(self.flow_.base.device).manual_seed(seed)


def _estimator(kind: Kind) -> Kind:
    """Give an estimator its constructor: its own options, those that all estimators share, and those of ``snflow.fit``.

    scikit-learn reads the options from the signature of ``__init__``, and the attributes of the same names.
    """
    options = {name: p for name, p in inspect.signature(fit).parameters.items() if name in _OPTIONS_OF_FIT}
    described: dict[str, str] = {}
    for source, documented in ((fit, fit), (FlowEstimator.__init__, FlowEstimator), (kind.__init__, kind)):
        options |= inspect.signature(source).parameters if documented is not fit else {}
        before, own, after = split_docstring(documented.__doc__ or "")
        described |= own
    own_self, flow = options.pop("self"), options.pop("flow")
    parameters = [flow, *(p for p in options.values() if p.kind is p.KEYWORD_ONLY)]
    signature = inspect.Signature(parameters)

    def __init__(self: FlowEstimator, *args: Any, **kwargs: Any) -> None:
        check_arguments(kind.__name__, signature, args, kwargs)
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        for name, value in bound.arguments.items():
            setattr(self, name, value)

    __init__.__signature__ = inspect.Signature([own_self, *parameters])  # type: ignore[attr-defined]
    kind.__init__ = __init__  # type: ignore[method-assign]
    kind.__doc__ = before + "".join(described[p.name] for p in parameters) + after
    return kind


def _as_array(X: Any) -> Any:
    """Lists of numbers and labels as an array of objects: NumPy would make text of the numbers."""
    if isinstance(X, list | tuple) and np.asarray(X).dtype.kind in "US":
        return np.asarray(X, dtype=object)
    return X


def _rescaled(report: FitReport, log_scale: float) -> FitReport:
    """A report on standardized data in terms of the data: −log p(x) = −log p(z) + Σ log σ."""
    shifted = ("objective", "validation_nll")
    history = [
        {name: value + log_scale if name in shifted and value is not None else value for name, value in row.items()}
        for row in report.history
    ]
    return replace(report, history=history, validation_nll=report.validation_nll + log_scale)


@final
class _ClassStandardization(Bijection):
    """z = (x − μ_y)/σ_y, with the class y given by indicators c: the moments of each class, fixed.

    Args:
        means: μ, with shape ``(classes, D)``.
        scales: σ, with the same shape.
    """

    means: Tensor
    scales: Tensor

    def __init__(self, means: Tensor, scales: Tensor) -> None:
        super().__init__()
        self.event_shape, self.context_shape = tuple(means.shape[1:]), tuple(means.shape[:1])
        self.register_buffer("means", means)
        self.register_buffer("scales", scales)

    @classmethod
    def of(cls, z: Tensor, labels: Tensor) -> Self:
        """The moments of standardized rows ``(N, D)`` with labels ``(N,)``; small deviations are raised to a floor."""
        groups = [z[labels == label] for label in range(int(labels.max()) + 1)]
        scales = torch.stack([group.std(0, correction=0) for group in groups])
        return cls(torch.stack([group.mean(0) for group in groups]), scales.clamp_min(_SMALLEST_SCALE_OF_CLASS))

    def _forward(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, scale = self._moments(context)
        return (x - mean) / scale, -scale.log().sum(1)

    def _inverse(self, z: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        mean, scale = self._moments(context)
        return z * scale + mean, scale.log().sum(1)

    def _moments(self, context: Tensor | None) -> tuple[Tensor, Tensor]:
        indicators = cast(Tensor, context)
        return indicators @ self.means, indicators @ self.scales


@final
@_estimator
class FlowDensity(OutlierMixin, DensityMixin, FlowEstimator):
    """p(x), the density of the rows of a table, by a flow; rows of low density are outliers.

    Real numbers are standardized. Integers and categories, which are numbered, are dequantized by uniform noise:
    scores are then lower bounds on the log-probability of these columns, and samples are integers and labels. The
    fitted flow is ``flow_``; ``print(report_)`` says how training went.

    Args:
        contamination: Share of the training data that ``predict`` takes for outliers, in (0, 0.5].

    Raises:
        DataError, DtypeError: from ``fit`` and the methods that take a table: a value is missing, infinite, or of
            another kind than in the training data.
        ConfigError: from ``fit``: an option is unknown or out of range.
        DivergenceError: from ``fit``: training produced a non-finite value.

    Warns:
        DataWarning: columns are constant or equal, or rows with missing values were dropped.

    Example:
        >>> import numpy as np, snflow
        >>> x = np.random.default_rng(0).normal(100, 5, size=(300, 2))
        >>> model = snflow.FlowDensity("realnvp", epochs=2, random_state=0).fit(x)
        >>> model.score_samples(x[:3]).shape, model.sample(4).shape
        ((3,), (4, 2))
        >>> model.predict([[100, 100], [1000, -1000]])
        array([ 1, -1])
    """

    contamination: float
    offset_: float

    def __init__(
        self, flow: str | Callable[..., Flow] = "neural_spline", *, contamination: float = 0.05, **options: Any
    ) -> None: ...

    def fit(self, X: Any, y: object = None) -> Self:
        """Fit the flow to a table ``(N, D)``: an array, or a pandas or polars data frame; ``y`` is ignored."""
        if not 0 < self.contamination <= 0.5:
            raise ConfigError("FlowDensity", expected="0 < contamination ≤ 0.5", got=repr(self.contamination))
        values, _ = self._training_rows(X)
        self.columns_.warn("FlowDensity", values)
        self._fit_flow(self._noisy(values, self.columns_.discrete))
        scores = self._log_prob(values, self.columns_.discrete)
        self.offset_ = float(np.percentile(scores, 100 * self.contamination))
        return self

    def score_samples(self, X: Any) -> Floats:
        """log p(x) of each row, in nats, with shape ``(N,)``, computed in float64."""
        values = self._read_complete(X)
        return self._log_prob(values, self.columns_.discrete)

    def score(self, X: Any, y: object = None) -> float:
        """The mean of :meth:`score_samples`, which ``GridSearchCV`` maximizes."""
        return float(self.score_samples(X).mean())

    def decision_function(self, X: Any) -> Floats:
        """log p(x) − ``offset_``, the quantile ``contamination`` of the training data; negative for outliers."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """1 for inliers and −1 for outliers, with shape ``(N,)``."""
        return np.where(self.decision_function(X) >= 0, 1, -1)

    def sample(self, n_samples: int = 1, random_state: RandomState = None) -> Any:
        """New rows: a table of the kind, and with the dtypes and labels, of the training data.

        Integers and categories stay in the range of the training data. Without a ``random_state``, each call returns
        the same rows.
        """
        check_is_fitted(self, "report_")
        rows = self.flow_.sample(n_samples, generator=self._generator(random_state))
        return self.columns_.table(rows.cpu().numpy())


@final
@_estimator
class FlowClassifier(ClassifierMixin, FlowEstimator):
    """P(y | x) ∝ P(y) p(x | y): Bayes' rule with the density of each class, by one flow conditioned on the class.

    The columns of each class are standardized by themselves, so that the flow starts from Gaussian naive Bayes. Tables
    are read as by :class:`FlowDensity`.

    Args:
        priors: P(y): ``"empirical"`` for the shares of the training data, ``"uniform"``, or one probability for each
            class, in the order of ``classes_``.

    Raises:
        DataError, DtypeError, ConfigError, DivergenceError: as :class:`FlowDensity`.

    Warns:
        DataWarning: as :class:`FlowDensity`.

    Example:
        >>> import snflow
        >>> from sklearn.datasets import load_iris
        >>> x, y = load_iris(return_X_y=True)
        >>> model = snflow.FlowClassifier("realnvp", epochs=5, random_state=0).fit(x, y)
        >>> model.predict_proba(x[:2]).shape, bool(model.score(x, y) > 0.9)
        ((2, 3), True)
    """

    priors: Priors | Sequence[float]
    classes_: NDArray[Any]
    priors_: Floats

    def __init__(
        self,
        flow: str | Callable[..., Flow] = "neural_spline",
        *,
        priors: Priors | Sequence[float] = "empirical",
        **options: Any,
    ) -> None: ...

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the flow to a table ``(N, D)`` and the labels of its rows ``(N,)``, numbers or text."""
        y = _target("FlowClassifier", X, y)
        check_classification_targets(y)
        values, complete = self._training_rows(X)
        self.columns_.warn("FlowClassifier", values)
        self.classes_, labels = np.unique(y[complete], return_inverse=True)
        self.priors_ = self._probabilities(labels)
        indicators = np.eye(len(self.classes_))
        self._fit_flow(self._noisy(values, self.columns_.discrete), indicators[labels], labels)
        return self

    def predict_log_proba(self, X: Any) -> Floats:
        """log P(y | x) for each class, in the order of ``classes_``, with shape ``(N, classes)``."""
        return cast(Floats, log_softmax(self._joint(X), axis=1))

    def predict_proba(self, X: Any) -> Floats:
        """P(y | x) for each class, in the order of ``classes_``, with shape ``(N, classes)``."""
        return np.exp(self.predict_log_proba(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """The most probable class of each row, with shape ``(N,)``."""
        most_probable = self._joint(X).argmax(1)
        return np.asarray(self.classes_[most_probable])

    def score_samples(self, X: Any) -> Floats:
        """log p(x) = log Σ_y P(y) p(x | y), in nats, with shape ``(N,)``: low where x resembles no class."""
        return cast(Floats, logsumexp(self._joint(X), axis=1))

    def _joint(self, X: Any) -> Floats:
        """log P(y) p(x | y), with shape ``(N, classes)``."""
        values = self._read_complete(X)
        contexts = [np.tile(one, (len(values), 1)) for one in np.eye(len(self.classes_))]
        with np.errstate(divide="ignore"):
            log_priors = np.log(self.priors_)
        return np.stack([self._log_prob(values, self.columns_.discrete, c) for c in contexts], axis=1) + log_priors

    def _probabilities(self, labels: NDArray[np.int64]) -> Floats:
        counts = np.bincount(labels)
        if isinstance(self.priors, str):
            check_choice("FlowClassifier", "priors", self.priors, Priors)
            return counts / len(labels) if self.priors == "empirical" else np.full(len(counts), 1 / len(counts))
        priors = np.asarray(self.priors, dtype=np.float64)
        if priors.shape != counts.shape or (priors < 0).any() or not math.isclose(priors.sum(), 1.0):
            expected = f"{len(counts)} probabilities with sum 1, one for each class"
            raise ConfigError("FlowClassifier", expected=f"priors to be {expected}", got=repr(self.priors))
        return priors


@final
@_estimator
class FlowRegressor(RegressorMixin, FlowEstimator):
    """p(y | x), the distribution of a number given the columns of a table, by a flow conditioned on x.

    Columns are standardized, and categories enter as indicators. If all y are integers, they are dequantized by uniform
    noise: scores are then lower bounds on log P(y | x), and quantiles and samples are integers.

    Raises:
        DataError, DtypeError, DivergenceError: as :class:`FlowDensity`.
        ConfigError: from ``fit``: an option is unknown or out of range, or the flow's base is not a standard normal.

    Warns:
        DataWarning: rows with missing values were dropped.

    Example:
        >>> import numpy as np, snflow
        >>> x = np.random.default_rng(0).normal(size=(300, 2))
        >>> y = 3 * x[:, 0] + np.random.default_rng(1).normal(size=300)
        >>> model = snflow.FlowRegressor("maf", epochs=5, random_state=0).fit(x, y)
        >>> model.predict(x[:2]).shape, model.interval(x[:2], 0.9).shape, model.log_prob(x, y).shape
        ((2,), (2, 2), (300,))
    """

    def __init__(self, flow: str | Callable[..., Flow] = "neural_spline", **options: Any) -> None: ...

    def fit(self, X: Any, y: Any) -> Self:
        """Fit the flow to a table ``(N, D)`` and the numbers ``(N,)`` that belong to its rows."""
        target = _target("FlowRegressor", X, y, dtype=np.float64)
        values, complete = self._training_rows(X)
        target = target[complete, None]
        self._whole = np.array([bool((target == np.floor(target)).all())])
        context = self.columns_.indicators(values)
        self._fit_flow(self._noisy(target, self._whole), context)
        if not isinstance(self.flow_.base, StandardNormal):
            raise ConfigError("FlowRegressor", expected="a flow with a standard normal base", got=self.flow_.base.label)
        low, high = self._decoded(context[:1], np.array([-1.0, 1.0]))[0]
        self._sign = 1.0 if high > low else -1.0  # that of the slope, which is the same for all contexts
        return self

    def predict(self, X: Any) -> Floats:
        """E[y | x] = ∫ f⁻¹(z; x) N(z) dz for each row, with shape ``(N,)``, by the trapezoidal rule."""
        weights = np.exp(-(_NODES**2) / 2)
        mean = self._decoded(self._context(X), _NODES) @ (weights / weights.sum())
        return cast(Floats, mean - 0.5 * self._whole)

    def quantiles(self, X: Any, q: ArrayLike) -> Floats:
        """The quantiles of p(y | x): y with P(y' ≤ y | x) = q, exact up to the inverse of the flow.

        Args:
            X: a table, with shape ``(N, D)``.
            q: one probability, or several, in (0, 1).

        Returns:
            Shape ``(N,)`` for one probability, ``(N, Q)`` for Q.

        Raises:
            ConfigError: a probability is not between 0 and 1.
        """
        q = np.asarray(q, dtype=np.float64)
        if q.ndim > 1 or not ((q > 0) & (q < 1)).all():
            raise ConfigError("FlowRegressor.quantiles", expected="0 < q < 1, one number or several", got=str(q))
        y = self._decoded(self._context(X), self._sign * ndtri(np.atleast_1d(q)))
        y = np.floor(y) if self._whole[0] else y
        return y if q.ndim else y[:, 0]

    def interval(self, X: Any, level: float = 0.9) -> Floats:
        """The central interval that contains y with probability ``level``: lower and upper end, ``(N, 2)``."""
        if not 0 < level < 1:
            raise ConfigError("FlowRegressor.interval", expected="0 < level < 1", got=repr(level))
        return self.quantiles(X, [(1 - level) / 2, (1 + level) / 2])

    def log_prob(self, X: Any, y: Any) -> Floats:
        """log p(y | x) of each row, in nats, with shape ``(N,)``, computed in float64."""
        context = self._context(X)
        target = _target("FlowRegressor", X, y, dtype=np.float64)[:, None]
        if self._whole[0] and (target != np.floor(target)).any():
            raise DataError("FlowRegressor", expected="integers as y, as in the training data", got="fractions")
        return self._log_prob(target, self._whole, context)

    def sample(self, X: Any, n_samples: int = 1, random_state: RandomState = None) -> Floats:
        """Draws from p(y | x), with shape ``(N, n_samples)``; without a ``random_state``, the same in each call."""
        context = self._tensor(self._context(X))
        y = self.flow_.sample(n_samples, context, generator=self._generator(random_state))[..., 0].T.cpu().numpy()
        return np.floor(y) if self._whole[0] else y

    def _context(self, X: Any) -> Floats:
        values = self._read_complete(X)
        return self.columns_.indicators(values)

    @torch.no_grad()
    def _decoded(self, context: Floats, nodes: Floats) -> Floats:
        """y = f⁻¹(z; x) of every context and every node z, with shape ``(N, nodes)``."""
        z, parts = self._tensor(nodes[:, None]), self._tensor(context).split(max(1, _SCORED_ROWS // len(nodes)))
        decoded = [
            self.flow_.decode(z.repeat(len(c), 1), c.repeat_interleave(len(z), 0)).reshape(len(c), -1) for c in parts
        ]
        return cast(Floats, torch.cat(decoded).cpu().numpy())


def _target(where: str, X: Any, y: Any, **options: Any) -> NDArray[Any]:
    """The labels or numbers ``(N,)`` that belong to the rows of a table, checked as scikit-learn does."""
    if y is None:
        raise DataError(where, expected="y", got="none: requires y to be passed, but the target y is None")
    y = column_or_1d(check_array(y, ensure_2d=False, input_name="y", **{"dtype": None, **options}), warn=True)
    check_consistent_length(X, y)
    return cast(NDArray[Any], y)
