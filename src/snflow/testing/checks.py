"""Checks of the contract of a bijection, for the layers of the library and for custom layers."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from functools import partial

import torch
from torch import Size, Tensor

from snflow.bijections.base import Bijection
from snflow.bijections.domain import bounds, of_events
from snflow.distributions.base import StandardNormal
from snflow.distributions.flow import Flow
from snflow.distributions.torch_distribution import FlowDistribution
from snflow.errors import (
    ConfigError,
    ContextError,
    DeviceError,
    DtypeError,
    NotInvertibleError,
    ShapeError,
    SnflowError,
    check_event_shape,
)
from snflow.testing.cases import Case

Direction = Callable[[Tensor, Tensor | None], tuple[Tensor, Tensor]]


class ContractError(AssertionError):
    """A layer violates the contract; the message states by how much."""


def _close(what: str, got: Tensor, wanted: Tensor, tolerance: float) -> None:
    """Compare up to a tolerance relative to max(1, |wanted|); NaN is never close."""
    if got.shape != wanted.shape:
        raise ContractError(f"{what}: shape {tuple(got.shape)} instead of {tuple(wanted.shape)}")
    got, wanted = got.detach(), wanted.detach()
    error = ((got - wanted).abs() / wanted.abs().clamp_min(1)).max() if got.numel() else torch.zeros(())
    if not error <= tolerance:
        raise ContractError(f"{what}: off by {float(error):.2e}, allowed {tolerance:.0e}")


def _jacobian(direction: Direction, at: Tensor, context: Tensor | None) -> Tensor:
    jacobian: Tensor = torch.autograd.functional.jacobian(lambda v: direction(v[None], context)[0][0], at)
    return jacobian.reshape(at.numel(), at.numel())


def check_round_trip(case: Case) -> None:
    """f⁻¹(f(x)) = x and f(f⁻¹(z)) = z, and the two log-determinants add up to zero."""
    layer, x, context = case.layer(), case.data(), case.context()
    z, log_det = layer(x, context)
    back, log_det_back = layer.inverse(z, context)
    _close("inverse(forward(x))", back, x, case.round_trip)
    _close("log_det of the round trip", log_det_back, -log_det, case.round_trip)
    _close("forward(inverse(z))", layer(back, context)[0], z, case.round_trip)


def check_log_det(case: Case) -> None:
    """log_det = log|det| of the Jacobian computed by autograd, in both directions, for each row."""
    layer, x, context = case.layer(), case.data(3), case.context(3)
    z = layer(x, context)[0].detach()
    for what, direction, start in (("log_det", layer, x), ("log_det of the inverse", layer.inverse, z)):
        claimed = direction(start, context)[1]
        for row in range(len(start)):
            given = None if context is None else context[row : row + 1]
            jacobian = _jacobian(direction, start[row], given)
            _close(what, claimed[row], torch.linalg.slogdet(jacobian)[1], case.log_det)


def check_shapes(case: Case) -> None:
    """Batches of 0, 1 and 7 work; the shape methods are correct; ``encode`` and ``decode`` agree with the rest."""
    for batch in (0, 1, 7):
        layer, x, context = case.layer(), case.data(batch), case.context(batch)
        z, log_det = layer(x, context)
        wanted = layer.latent_shape(case.event_shape)
        if tuple(z.shape) != (batch, *wanted) or tuple(log_det.shape) != (batch,):
            raise ContractError(f"batch of {batch}: z {tuple(z.shape)}, log_det {tuple(log_det.shape)}")
        if layer.data_shape(wanted) != case.event_shape:
            raise ContractError(f"data_shape({wanted}) is not {case.event_shape}")
        _close("encode(x)", layer.encode(x, context), z, 0.0)
        _close("decode(z)", layer.decode(z, context), layer.inverse(z, context)[0], 0.0)


def check_rows(case: Case) -> None:
    """The result for a row does not depend on the other rows, even if one of them is NaN."""
    layer, x, context = case.layer(), case.data(), case.context()
    z, log_det = layer(x, context)
    one = layer(x[2:3], None if context is None else context[2:3])
    _close("z of a single row", one[0], z[2:3], max(case.rows, 1e-12))
    _close("log_det of a single row", one[1], log_det[2:3], max(case.rows, 1e-12))
    damaged = x.clone()
    damaged[2] = torch.nan
    z_damaged, log_det_damaged = layer(damaged, context)
    others = torch.arange(len(x)) != 2
    _close("z of the other rows of a batch with NaN", z_damaged[others], z[others], case.rows)
    _close("log_det of the other rows of a batch with NaN", log_det_damaged[others], log_det[others], case.rows)


def check_domain(case: Case) -> None:
    """Data lie in ``domain``, latents in ``codomain``; a distribution with validation refuses all other data."""
    layer, x, context = case.layer(), case.data(), case.context()
    z = layer.encode(x, context)
    for what, points, own in (("data", x, layer.domain), ("latents", z, layer.codomain)):
        inside = of_events(own, points.dim() - 1, context, x.shape[:1] if context is not None else Size()).check(points)
        if not bool(inside.all()):
            raise ContractError(f"{int((~inside).sum())} of {len(points)} {what} outside {own}")
    flow = Flow(layer, StandardNormal(tuple(z.shape[1:])).double())
    distribution = FlowDistribution(flow, context, validate_args=True)
    distribution.log_prob(x)
    low, high = (torch.as_tensor(end).flatten()[0].item() for end in bounds(layer.domain) or (-torch.inf, torch.inf))
    for beyond in {torch.nan, low - 1, high + 1} - {-torch.inf, torch.inf}:
        outside = x.clone()
        outside[0].view(-1)[0] = beyond
        _refuses(ValueError, lambda given=outside: distribution.log_prob(given))  # type: ignore[misc]


def check_gradients(case: Case) -> None:
    """In eval(): gradients of both directions with respect to input and parameters match finite differences."""
    if not case.smooth:
        return
    layer, x, context = case.layer(), case.data(2).requires_grad_(), case.context(2)
    z = layer(x, context)[0].detach().requires_grad_()
    parameters = tuple(p for p in layer.parameters() if p.requires_grad)
    for direction, start in ((layer, x), (layer.inverse, z)):

        def joined(v: Tensor, *_: Tensor, run: Direction = direction) -> Tensor:
            # a single output, since gradcheck skips outputs without a graph
            value, log_det = run(v, context)
            return torch.cat([value.flatten(1), log_det[:, None]], 1)

        inputs = (start, *parameters)
        # Large layers are compared along random directions: all entries of their Jacobian would take minutes.
        fast = sum(tensor.numel() for tensor in inputs) > _MOST_INPUTS
        torch.autograd.gradcheck(joined, inputs, atol=1e-6, check_undefined_grad=False, fast_mode=fast)


_MOST_INPUTS = 30
"""Number of elements of data and parameters up to which a gradient is checked entry by entry."""


def check_single_precision(case: Case) -> None:
    """Results in float32 have dtype float32, agree with float64, and pass a round trip."""
    layer, x, context = case.layer(), case.data(), case.context()
    z, log_det = layer(x, context)
    single = copy.deepcopy(layer).float()
    given = None if context is None else context.float()
    z32, log_det32 = single(x.float(), given)
    back = single.inverse(z32, given)[0]
    for name, value in (("z", z32), ("log_det", log_det32), ("x", back)):
        if value.dtype != torch.float32:
            raise ContractError(f"{name} is {value.dtype} for float32 data")
    _close("z in float32", z32.double(), z, case.single)
    _close("log_det in float32", log_det32.double(), log_det, case.single)
    _close("round trip in float32", back.double(), x, case.single)


def check_state(case: Case) -> None:
    """``state_dict``, ``deepcopy`` and ``pickle`` restore the layer, bit for bit."""
    layer, x, context = case.layer(), case.data(), case.context()
    z, log_det = layer(x, context)
    fresh = case.layer()
    with torch.no_grad():
        for parameter in fresh.parameters():
            parameter.zero_()
    buffer = io.BytesIO()
    torch.save(layer.state_dict(), buffer)
    buffer.seek(0)
    fresh.load_state_dict(torch.load(buffer, weights_only=True))
    copies = {
        "load_state_dict": fresh,
        "deepcopy": copy.deepcopy(layer),
        "pickle": pickle.loads(pickle.dumps(layer)),
    }
    for method, twin in copies.items():
        again = twin.eval()(x, context)
        _close(f"z after {method}", again[0], z, 0.0)
        _close(f"log_det after {method}", again[1], log_det, 0.0)


def check_refusals(case: Case) -> None:
    """A wrong event shape, dtype, device, rank or context raises the appropriate error of the library."""
    layer, x, context = case.layer(), case.data(), case.context()
    if layer.event_shape is not None:
        _refuses(ShapeError, lambda: layer(x[..., None], context))
    _refuses(ShapeError, lambda: layer(x.new_zeros(()), context))
    _refuses(DtypeError, lambda: layer(x.long(), context))
    if any(value.is_floating_point() for value in layer.state_dict().values()):
        _refuses(DtypeError, lambda: layer(x.float(), context))
        _refuses(DeviceError, lambda: layer(x.to("meta"), context))
    if context is None:
        _refuses(ContextError, lambda: layer(x, x))
    else:
        _refuses(ContextError, lambda: layer(x))
        _refuses(ShapeError, lambda: layer(x, context[1:]))


def check_autocast(case: Case) -> None:
    """Autocast does not change the result, bit for bit."""
    layer, x, context = case.layer().float(), case.data().float(), case.context()
    given = None if context is None else context.float()
    z, log_det = layer(x, given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z_cast, log_det_cast = layer(x, given)
    _close("z under autocast", z_cast, z, 0.0)
    _close("log_det under autocast", log_det_cast, log_det, 0.0)


def check_transforms(case: Case) -> None:
    """Gradients of ``forward`` under torch.func, including per-row and forward-mode ones, agree with autograd."""

    def objective(layer: Bijection, x: Tensor, context: Tensor | None) -> Tensor:
        z, log_det = layer(x, context)
        value: Tensor = z.square().sum() + log_det.sum()
        return value

    layer, x, context = case.layer(), case.data(3), case.context(3)

    def of_row(row: Tensor, given: Tensor | None) -> Tensor:
        return objective(layer, row[None], None if given is None else given[None])

    in_dims = (0, None if context is None else 0)
    by_row = torch.func.vmap(torch.func.grad(of_row), in_dims=in_dims, randomness="different")
    if not case.transforms:
        _refuses(ConfigError, lambda: by_row(x, context))
        return
    twin = copy.deepcopy(layer)
    leaf, parameters = x.clone().requires_grad_(), dict(twin.named_parameters())
    wanted, *by_parameter = torch.autograd.grad(
        objective(twin, leaf, context), [leaf, *parameters.values()], allow_unused=True, materialize_grads=True
    )
    _close("gradient of each row", by_row(x, context), wanted, 1e-9)
    _close("gradient", torch.func.grad(lambda v: objective(layer, v, context))(x), wanted, 1e-9)
    tangent = torch.randn_like(x)
    along = torch.func.jvp(lambda v: objective(layer, v, context), (x,), (tangent,))[1]
    _close("derivative along a direction", along, (wanted * tangent).sum(), 1e-8)

    def of_parameters(given: dict[str, Tensor]) -> Tensor:
        z, log_det = torch.func.functional_call(layer, given, (x, context))
        value: Tensor = z.square().sum() + log_det.sum()
        return value

    values = {name: parameter.detach() for name, parameter in parameters.items()}
    for name, gradient in zip(values, torch.func.grad(of_parameters)(values).values(), strict=True):
        _close(f"gradient by {name}", gradient, by_parameter[list(values).index(name)], 1e-8)


def check_damaged_weights(case: Case) -> None:
    """With parameters of 0, NaN or ∞, ``train()`` and ``eval()`` raise the same error, or no gradient is silently NaN.

    A finite loss has finite gradients; a loss that is not finite is seen by every training loop.
    """
    x, context = case.data(), case.context()
    for value in (0.0, torch.nan, torch.inf):
        raised = []
        for training in (False, True):
            layer = case.layer().train(training)
            with torch.no_grad():
                for parameter in layer.parameters():
                    parameter.fill_(value)
            try:
                z, log_det = layer(x, context)
            except NotInvertibleError:
                raised.append(training)
                continue
            loss = z.square().sum() + log_det.sum()
            if not (bool(loss.isfinite()) and loss.requires_grad):
                continue
            parameters = dict(layer.named_parameters())
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True, materialize_grads=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if not bool(gradient.isfinite().all()):
                    raise ContractError(f"parameters of {value}: finite loss, but a gradient by {name} that is not")
        if len(raised) == 1:
            where = "train()" if raised[0] else "eval()"
            raise ContractError(f"parameters of {value}: NotInvertibleError in {where} only")


def check_second_derivatives(case: Case) -> None:
    """Hessians of the log-density by the data are right or refused, by every route and in both modes.

    The log-density, under a standard normal base, is differentiated along random directions, and compared with
    differences of its first derivatives.
    """
    if not case.smooth:
        return
    x, context = case.data(2), case.context(2)
    # A differential equation takes as long as all other layers together; its two modes are the same.
    count, modes = (2, (False, True)) if case.transforms else (1, (False,))
    directions, origin, step = torch.randn(count, *x.shape, dtype=x.dtype), torch.zeros(count, dtype=x.dtype), 1e-5
    for training in modes:
        layer = case.layer().train()
        layer(x, context)  # the first batch, for layers that are initialized by it
        layer.train(training)

        def density(t: Tensor, twin: Bijection) -> Tensor:
            torch.manual_seed(_SEED)
            z, log_det = twin(x + torch.tensordot(t, directions, 1), context)
            total: Tensor = log_det.sum() - z.square().sum() / 2
            return total

        def slope(t: Tensor, twin: Bijection) -> Tensor:
            t = t.clone().requires_grad_()
            return torch.autograd.grad(density(t, twin), t)[0]

        units = step * torch.eye(count, dtype=x.dtype)
        ends = [[slope(sign * unit, copy.deepcopy(layer)) for sign in (1, -1)] for unit in units]
        wanted = torch.stack([(above - below) / (2 * step) for above, below in ends])
        for route, hessian in _HESSIANS.items():
            twin = copy.deepcopy(layer)
            try:
                found = hessian(partial(density, twin=twin))(origin)
            except (SnflowError, RuntimeError):  # of this library, or of torch
                continue
            _close(f"Hessian by {route} in {'train' if training else 'eval'}()", found, wanted, 1e-4)


_SEED = 0

_HESSIANS: dict[str, Callable[[Callable[[Tensor], Tensor]], Callable[[Tensor], Tensor]]] = {
    "torch.autograd": lambda function: partial(torch.autograd.functional.hessian, function),
    "jacrev of jacrev": lambda function: torch.func.jacrev(torch.func.jacrev(function)),
    "jacfwd of jacrev": lambda function: torch.func.jacfwd(torch.func.jacrev(function), randomness="same"),
}
"""Ways to compute a Hessian."""


def _refuses(kind: type[Exception], call: Callable[[], object]) -> None:
    try:
        call()
    except kind:
        return
    raise ContractError(f"expected {kind.__name__}, but nothing was raised")


CHECKS: dict[str, Callable[[Case], None]] = {
    "round_trip": check_round_trip,
    "log_det": check_log_det,
    "shapes": check_shapes,
    "rows": check_rows,
    "domain": check_domain,
    "gradients": check_gradients,
    "single_precision": check_single_precision,
    "state": check_state,
    "refusals": check_refusals,
    "autocast": check_autocast,
    "transforms": check_transforms,
    "second_derivatives": check_second_derivatives,
    "damaged_weights": check_damaged_weights,
}
"""The checks by name; every layer passes all of them."""


def check(layer: Bijection, event_shape: int | tuple[int, ...], **options: object) -> dict[str, str]:
    """Run all checks of the contract on a custom layer.

    Args:
        layer: the layer, which is copied and not modified.
        event_shape: the shape of one data event; an int D for vectors ``(D,)``.
        options: further fields of :class:`~snflow.testing.Case`, such as ``sample`` and ``round_trip``.

    Returns:
        For each check, ``"ok"`` or a description of the error.

    Example:
        >>> import snflow
        >>> set(check(snflow.Dense(3), 3).values())
        {'ok'}
    """
    shape = check_event_shape("testing.check", event_shape)
    case = Case(lambda: copy.deepcopy(layer), shape, **options)  # type: ignore[arg-type]
    report = {}
    for name, run in CHECKS.items():
        try:
            run(case)
            report[name] = "ok"
        except Exception as wrong:  # any error raised by the layer is reported
            report[name] = f"{type(wrong).__name__}: {wrong}"
    return report
