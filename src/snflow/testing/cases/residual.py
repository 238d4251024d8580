"""Layers that add to x, once or all the time."""

from snflow.bijections import ContinuousFlow, GeneralizedSylvester, InvertibleResidual, Planar, Radial, Sylvester
from snflow.nets import LipschitzDenseNet, LipschitzNet, VelocityNet
from snflow.testing.case import Case, perturbed

CASES = {
    "GeneralizedSylvester": Case(perturbed(lambda: GeneralizedSylvester(3, 2, 6, 1, activation="tanh"), 0.3), (3,)),
    "GeneralizedSylvester (context)": Case(
        perturbed(lambda: GeneralizedSylvester(2, 2, 6, 1, 2, activation="tanh"), 0.3), (2,)
    ),
    "InvertibleResidual": Case(perturbed(lambda: InvertibleResidual(LipschitzNet((3,), 4), (3,)), 0.3), (3,)),
    "InvertibleResidual (context)": Case(
        perturbed(lambda: InvertibleResidual(LipschitzNet((2,), 4, context_features=2), (2,), context_shape=(2,)), 0.3),
        (2,),
    ),
    "InvertibleResidual (dense)": Case(
        perturbed(lambda: InvertibleResidual(LipschitzDenseNet((2,), 2, 2), (2,))), (2,)
    ),
    "InvertibleResidual (dense images)": Case(
        perturbed(lambda: InvertibleResidual(LipschitzDenseNet((1, 3, 2), 1, 1), (1, 3, 2))), (1, 3, 2)
    ),
    "InvertibleResidual (images)": Case(
        perturbed(lambda: InvertibleResidual(LipschitzNet((2, 2, 2), 2, 1), (2, 2, 2))), (2, 2, 2)
    ),
    "Planar": Case(perturbed(lambda: Planar(3), 0.5), (3,)),
    "Planar (context)": Case(perturbed(lambda: Planar(3, 2), 0.5), (3,)),
    "Planar (one feature)": Case(perturbed(lambda: Planar(1), 0.5), (1,)),
    "Radial": Case(perturbed(lambda: Radial(3), 0.5), (3,)),
    "Radial (context)": Case(perturbed(lambda: Radial(3, 2), 0.5), (3,)),
    "Sylvester (Householder)": Case(perturbed(lambda: Sylvester(4, 3), 0.3), (4,)),
    "Sylvester (orthogonal)": Case(perturbed(lambda: Sylvester(4, 2, "orthogonal"), 0.3), (4,)),
    "Sylvester (triangular, context)": Case(perturbed(lambda: Sylvester(3, None, "triangular", 2), 0.3), (3,)),
    # steps of its own choice are no differentiable function: tests/test_continuous.py has its gradients
    "ContinuousFlow (adaptive, adjoint)": Case(
        perturbed(lambda: ContinuousFlow(VelocityNet((2,), 4), (2,), tolerance=1e-9), 0.3),
        (2,),
        round_trip=1e-7,
        log_det=1e-7,
        rows=1e-7,
        smooth=False,
        transforms=False,
    ),
    "ContinuousFlow (context)": Case(
        perturbed(
            lambda: ContinuousFlow(
                VelocityNet((2,), 4, 1, context_features=2), (2,), context_shape=(2,), solver="rk4", adjoint=False
            ),
            0.3,
        ),
        (2,),
        round_trip=1e-6,
        log_det=1e-6,
        transforms=False,
    ),
    "ContinuousFlow (images)": Case(
        perturbed(lambda: ContinuousFlow(VelocityNet((1, 2, 2), 2, 1), (1, 2, 2), solver="rk4", adjoint=False), 0.3),
        (1, 2, 2),
        round_trip=1e-5,
        log_det=1e-5,
        transforms=False,
    ),
}
