"""The named sets of runs of `short_runs.py`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from measurement import reference_of


@dataclass(frozen=True)
class Run:
    """One row: a recipe and its changed options."""

    name: str
    recipe: str
    options: tuple[str, ...] = ()

    def command(self, runs: Path) -> list[str]:
        """The command, as a list of words."""
        return ["snflow", "fit", reference_of(self.recipe), "--out", str(runs / self.name), *self.options]


@dataclass(frozen=True)
class Study:
    """The runs of one table."""

    title: str
    introduction: str
    runs: tuple[Run, ...]


# The MNIST recipes warm up over 10 epochs, as in the paper, and a short run would be warm-up only. One epoch of warm-up
# measures the paper's rate instead; the second set of runs keeps the paper's schedule.
WARM = ("--schedule.warmup_epochs", "1")
DENSE = ("--epochs", "10")

ANGLE = ("--training.measure_angle", "true")
PENALTY = ("--flow.tracking", "Penalty")
NEWTON = ("--flow.tracking", "Newton")
SECANT = ("--flow.tracking", "Secant")
TRACKINGS = {
    "exact": ("--flow.log_det_rule", "exact"),
    "penalty": PENALTY,
    "newton": NEWTON,
    "secant": SECANT,
}
NEUMANN, PULL = ("--flow.tracking.neumann_terms",), ("--flow.tracking.pull",)
SAMPLES = ("--flow.tracking.samples",)
INVERSE_SIZE = ("--flow.inverse_kernel_size",)
CONSTANT_DENSE = ("--epochs", "6", "--schedule.decay", "constant", *ANGLE)
GUARD_OFF = ("--flow.tracking.guard", "false")
GENTLE = ("--optimizer.learning_rate", "3e-4", "--schedule.warmup_epochs", "1")
GENTLE_DENSE = ("--epochs", "4", *GENTLE, *ANGLE)
GECO = (
    *("--flow.tracking.multiplier", "geco"),
    *("--flow.tracking.multiplier_rate", "0.05"),
    *("--flow.tracking.multiplier_tolerance", "0.1"),
)
LAMBDAS = ("0.001", "0.01", "0.1", "1", "10", "100", "1000")

# Equal time: the epochs of the full-matrix flow are chosen so that both train for about a minute on one core.
PAIRS = {
    "two_moons": (("toy", ("--data.shape", "two_moons")), ("30", "600")),
    "pinwheel": (("toy", ("--data.shape", "pinwheel")), ("30", "600")),
    "ccpp": (("table", ("--data.path", "uci/CCPP.csv")), ("30", "400")),
}

VECTOR_FLOWS = (
    "nice",
    "realnvp",
    "maf",
    "iaf",
    "neural_spline",
    "sos",
    "naf",
    "bnaf",
    "umnn",
    "planar",
    "radial",
    "sylvester",
)
FREE_FORM_FLOWS = ("residual", "densenet", "ffjord", "mintnet", "gaussianization")
TABLES = {
    "ccpp": ("--data.path", "uci/CCPP.csv", "--epochs", "40"),
    "magic": ("--data.path", "uci/magic04.data", "--data.drop_columns", "[10]", "--epochs", "15"),
    "casp": ("--data.path", "uci/CASP.csv", "--epochs", "6"),
}

STUDIES = {
    "digits": Study(
        "The digits: self-normalizing and exact",
        """The demo's recipe for its full 200 epochs, and the same flow with the exact gradient, three seeds each. The
        seed is that of weights, batches and noise; the split is the same.""",
        tuple(
            Run(f"{name}_seed{seed}", "digits_conv", ("--flow.log_det_rule", rule, "--seed", str(seed)))
            for seed in range(3)
            for name, rule in (("snf", "self_normalized"), ("exact", "exact"))
        ),
    ),
    "mnist": Study(
        "MNIST: short runs",
        """**Short runs**: the paper trains the dense models for 6000 epochs and the convolutional ones for 1000. One
        seed. Rows without `warmup10` warm up over one epoch instead of the paper's ten, so that nearly the whole run
        has the paper's rate.""",
        (
            *(Run(f"dense_{rule}", f"mnist_dense_{rule}", DENSE + WARM) for rule in ("snf", "exact", "relative")),
            *(Run(f"dense_{rule}_warmup10", f"mnist_dense_{rule}", DENSE) for rule in ("snf", "exact", "relative")),
            *(Run(f"conv_{rule}", f"mnist_conv_{rule}", ("--epochs", "2", *WARM)) for rule in ("snf", "exact")),
        ),
    ),
    "tracking_dense": Study(
        "Tracking the inverse: two dense layers on MNIST",
        """The recipe `mnist_dense_newton`, 6 epochs at a peak rate of 1e-3 with cosine decay and no warm-up, with four
        gradients of the log-determinant, two seeds each. **Short runs.** Seconds are those of the training steps;
        angles are between the training gradient and the exact one, on a fixed batch.""",
        tuple(
            Run(f"{name}_seed{seed}", "mnist_dense_newton", (*options, "--seed", str(seed), *ANGLE))
            for seed in range(2)
            for name, options in TRACKINGS.items()
        ),
    ),
    "penalty_samples": Study(
        "The penalty on a subset of each batch: two dense layers on MNIST",
        """The recipe `mnist_dense_snf`, 3 epochs at a peak rate of 3e-4 with one epoch of warm-up, batches of 100, the
        penalty on all rows, or on 50, 25 or 10 rows drawn at each step. **Short runs**, one seed. Seconds are those of
        the training steps.""",
        tuple(
            Run(
                f"rows_{name}",
                "mnist_dense_snf",
                ("--epochs", "3", *GENTLE, *PENALTY, "--flow.tracking.samples", value),
            )
            for name, value in (("all", "null"), ("50", "50"), ("25", "25"), ("10", "10"))
        ),
    ),
    "wall_time": Study(
        "Wall time to the likelihood of six exact epochs: two dense layers on MNIST",
        """The recipe `mnist_dense_newton` at a peak rate of 1e-3 with cosine decay to the end and no warm-up: exact
        gradients for 6 epochs, `Newton` for 6, 5 and 4. **Short runs**, one seed. Seconds are those of the training
        steps.""",
        tuple(
            Run(f"{name}_{epochs}", "mnist_dense_newton", (*TRACKINGS[name], "--epochs", str(epochs)))
            for name, epochs in (("exact", 6), ("newton", 6), ("newton", 5), ("newton", 4))
        ),
    ),
    "tracking_conv": Study(
        "Tracking the inverse: nine convolutions on MNIST",
        """The recipe `mnist_conv_newton`, 2 epochs with one of warm-up. **Short runs**, one seed.""",
        tuple(
            Run(name, "mnist_conv_newton", ("--epochs", "2", *WARM, *options, *ANGLE))
            for name, options in TRACKINGS.items()
        ),
    ),
    "tracking_glow": Study(
        "Tracking the inverse: a digits Glow with 3×3 mixing",
        """The recipe `digits_glow_newton`, 60 epochs, two seeds each.""",
        tuple(
            Run(f"{name}_seed{seed}", "digits_glow_newton", (*options, "--seed", str(seed), *ANGLE))
            for seed in range(2)
            for name, options in TRACKINGS.items()
        ),
    ),
    "tracking_digits": Study(
        "Tracking the inverse: nine convolutions on the digits, and variants",
        """The demo's recipe for 60 epochs, one seed: exact, the paper's penalty, and least-squares inverse kernels with
        K Neumann terms (`k0`, `k1`, `k3`), a penalty on w (`pull`), and inverse kernels of 7×7. `newton` and `secant`
        alone are the defaults, K = 1 and no pull.""",
        tuple(
            Run(name, "digits_conv", ("--epochs", "60", *options, *ANGLE))
            for name, options in {
                **TRACKINGS,
                "newton_k0": (*NEWTON, *NEUMANN, "0"),
                "newton_k3": (*NEWTON, *NEUMANN, "3"),
                "newton_pull0.01": (*NEWTON, *PULL, "0.01"),
                "newton_k0_pull0.1": (*NEWTON, *NEUMANN, "0", *PULL, "0.1"),
                "newton_k0_pull1": (*NEWTON, *NEUMANN, "0", *PULL, "1"),
                "newton_7x7": (*NEWTON, *INVERSE_SIZE, "7"),
                "newton_pull0.01_7x7": (*NEWTON, *PULL, "0.01", *INVERSE_SIZE, "7"),
                "penalty_k1": (*PENALTY, *NEUMANN, "1"),
            }.items()
        ),
    ),
    "asymmetric": Study(
        "A 3×3 kernel with an inverse of 3×3, 5×5 and 7×7, on the digits",
        """The demo's recipe with two scales for 60 epochs, one seed: six 3×3 convolutions on 8×8 and on 4×4 images. The
        inverse kernel is fitted by least squares at each step (`secant`, no Neumann term, a pull of 0.1). The
        inverse of a convolution is not a convolution: a larger kernel approximates it better.""",
        tuple(
            Run(
                f"{size}x{size}",
                "digits_conv",
                (
                    "--epochs",
                    "60",
                    "--flow.scales",
                    "2",
                    *SECANT,
                    *NEUMANN,
                    "0",
                    *PULL,
                    "0.1",
                    *INVERSE_SIZE,
                    size,
                    *ANGLE,
                ),
            )
            for size in ("3", "5", "7")
        ),
    ),
    "lambda": Study(
        "The penalty weight, with and without the guard: two dense layers on MNIST",
        """The recipe `mnist_dense_newton` with `Penalty`, 6 epochs at a constant rate of 1e-3, ten times the paper's.
        At this rate the penalty alone lags or diverges. **Short runs**, one seed. With the guard, then without: a run
        that diverges ends with exit code 3 and is listed with its error.""",
        tuple(
            Run(
                f"lambda{weight}{suffix}",
                "mnist_dense_newton",
                (*CONSTANT_DENSE, *PENALTY, "--flow.tracking.weight", weight, *guard),
            )
            for guard, suffix in (((), ""), (GUARD_OFF, "_unguarded"))
            for weight in LAMBDAS
        ),
    ),
    "geco": Study(
        "GECO with a tolerance, from three initial λ: two dense layers on MNIST",
        """The recipe `mnist_dense_newton` with `Penalty` and the guard, 4 epochs at a peak rate of 3e-4 with one epoch
        of warm-up and cosine decay. λ is fixed, or adapted by GECO at a rate of 0.05 to a relative reconstruction error
        ‖g(f(x)) − x‖ / ‖x‖ of 0.1. `both`: the penalty acts on w and r, as in the paper; `inverse`: on r alone
        (`on_inverse_only`). **Short runs**, one seed.""",
        tuple(
            Run(
                f"{whom}_{name}{weight}",
                "mnist_dense_newton",
                (*GENTLE_DENSE, *PENALTY, "--flow.tracking.weight", weight, *only, *how),
            )
            for whom, only in (("inverse", ("--flow.tracking.on_inverse_only", "true")), ("both", ()))
            for name, how in (("fixed", ()), ("geco_from", GECO))
            for weight in ("0.01", "1", "100")
        ),
    ),
    "pairs": Study(
        "A pair of free networks and a full-matrix flow in equal time",
        """The recipes `toy_pair` and `table_pair`, a self-normalizing pair of residual networks of width 256, compared
        with `toy_dense` and `table_dense`, eight free matrices with splines between them and exact gradients. One seed,
        three to five minutes each. NLL is that of the raw data, by the full Jacobian. Toys are points in the plane;
        CCPP has five columns. The total mass of the densities in the plane, in mass.txt, shows whether f is
        one-to-one.""",
        tuple(
            Run(f"{data}_{flow}", f"{kind}_{flow}", (*options, "--epochs", epochs[flow == "dense"]))
            for data, ((kind, options), epochs) in PAIRS.items()
            for flow in ("pair", "dense")
        ),
    ),
    "tables": Study(
        "The flows for vectors: three tables of the UCI repository",
        """The recipes `table_*` with fewer epochs: 40 on CCPP, 15 on MAGIC (without its class), 6 on CASP. **Short
        runs**, one seed, which also chooses the split. NLL is that of the data in their own units. CASP has a column of
        integers, for which the density is unbounded: its NLL shows how sharp a flow becomes.""",
        tuple(
            Run(f"{data}_{flow}", f"table_{flow}", options) for data, options in TABLES.items() for flow in VECTOR_FLOWS
        ),
    ),
    "toys": Study(
        "The flows for vectors: two moons",
        """The recipes `toy_*`, unchanged, one seed. NLL is that of the raw points.""",
        tuple(Run(flow, f"toy_{flow}") for flow in VECTOR_FLOWS),
    ),
    "freeform": Study(
        "Residual, continuous, masked and Gaussianizing flows: two moons, a table, the digits",
        """The recipes `toy_*`, `table_*` (CCPP) and `digits_*`, unchanged, one seed. NLL is that of the raw data.""",
        tuple(Run(f"toy_{flow}", f"toy_{flow}") for flow in FREE_FORM_FLOWS)
        + tuple(Run(f"table_{flow}", f"table_{flow}") for flow in FREE_FORM_FLOWS)
        + tuple(Run(f"digits_{flow}", f"digits_{flow}") for flow in ("residual", "ffjord", "mintnet")),
    ),
}
