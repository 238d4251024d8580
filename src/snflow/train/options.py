"""Options of the optimizer, the schedule, training and the device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from snflow.errors import MAX_INT, check_option

_MOST_PROCESSES = 10**4
"""More threads or devices exist on no machine; a run also compares them with those of its own."""


@dataclass(frozen=True)
class OptimizerOptions:
    """Adam (Kingma & Ba 2015) or AdamW, fused into one kernel if the device supports it."""

    name: Literal["adam", "adamw"] = "adam"
    """Adam, or AdamW, whose weight decay is not scaled by the gradient's second moment (Loshchilov & Hutter 2019)."""
    learning_rate: float = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay rates of the running means of the gradient and of its square, per step."""
    eps: float = 1e-8
    """Constant added to the square root of the second moment."""
    weight_decay: float = 0.0
    """Weight decay: added to the gradient as weight_decay × parameter by adam; taken off the parameter by adamw."""
    clip_norm: float | None = None
    """Maximum norm of the gradient over all parameters; null for no clipping."""

    def __post_init__(self) -> None:
        require = partial(check_option, "optimizer", self)
        require("learning_rate", 0 < self.learning_rate < math.inf, "a finite number above 0")
        require("betas", all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        require("eps", 0 < self.eps < math.inf, "a finite number above 0")
        require("weight_decay", 0 <= self.weight_decay < math.inf, "a finite number of at least 0")
        clip = self.clip_norm
        require("clip_norm", clip is None or 0 < clip < math.inf, "a finite number above 0, or null")


@dataclass(frozen=True)
class ScheduleOptions:
    """Learning-rate schedule: a linear warm-up, then a constant or decaying rate."""

    warmup_epochs: float = 0.0
    """Number of epochs over which the learning rate rises linearly to its peak."""
    decay: Literal["constant", "cosine", "step", "plateau"] = "constant"
    """After the warm-up: constant; half a cosine down to final_fraction of the peak; multiplied by factor every
    decay_epochs epochs (step); or whenever decay_epochs validations in a row are no improvement (plateau)."""
    final_fraction: float = 0.0
    """Learning rate at the last step of a cosine, as a fraction of the peak."""
    factor: float = 0.5
    """Factor by which step and plateau multiply the learning rate."""
    decay_epochs: int = 10
    """Epochs between two decays of step; validations without improvement before a decay of plateau."""

    def __post_init__(self) -> None:
        require = partial(check_option, "schedule", self)
        require("warmup_epochs", 0 <= self.warmup_epochs < math.inf, "a finite number of at least 0")
        require("final_fraction", 0 <= self.final_fraction <= 1, "a number in [0, 1]")
        require("factor", 0 < self.factor < 1, "a number between 0 and 1")
        require("decay_epochs", 1 <= self.decay_epochs <= MAX_INT, "an integer of at least 1")


@dataclass(frozen=True)
class TrainingOptions:
    """Number of epochs, batches, validation and checkpoints."""

    epochs: int = 100
    """Number of passes over the training data."""
    batch_size: int = 100
    """Number of rows per step, over all devices; an incomplete last batch is dropped."""
    eval_batch_size: int = 500
    """Number of rows per batch when the exact likelihood is computed."""
    seed: int = 0
    """Seed of the weights, the order of the batches, noise and pictures."""
    flip: bool = False
    """Flip each training image left to right with probability one half."""
    jitter: int = 0
    """Shift each training image at random by up to this number of pixels in each direction."""
    validate_every: int = 1
    """Number of epochs between exact validation likelihoods; the last epoch is always validated."""
    patience: int | None = None
    """Stop after this number of validations without improvement; null for no early stopping."""
    ema_decay: float | None = None
    """Decay per step of a moving average of the weights, which evaluation then uses; null for no average."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """On a non-finite objective or gradient: stop the run (exit code 3), or skip the step."""
    max_skips: int = 10
    """Maximum number of steps skipped in a row before the run stops."""
    divergence_rise: float | None = 0.05
    """Stop if the validation NLL rises by more nats per dimension while a learned inverse is lost; null for never."""
    measure_angle: bool = False
    """After each epoch, measure the angle between each layer's training gradient and the exact one (layers.csv)."""
    checkpoint_minutes: float = 1.0
    """Maximum minutes between checkpoints; each improved validation and the end of the run write one too."""
    checkpoint_every_epochs: int = 0
    """Number of epochs between checkpoints; 0 for checkpoint_minutes alone."""
    checkpoint_every_steps: int = 0
    """Number of steps between checkpoints; 0 for checkpoint_minutes alone."""
    precision: Literal["32-true", "64-true"] = "32-true"
    """Floating-point precision of weights and data, 32 or 64 bits; likelihoods are always summed in 64."""
    threads: int | None = None
    """Number of CPU threads; null for torch's default. A resumed run is bit-identical only with the same number."""

    def __post_init__(self) -> None:
        require = partial(check_option, "training", self)
        for field in ("epochs", "batch_size", "eval_batch_size", "validate_every", "max_skips"):
            require(field, 1 <= getattr(self, field) <= MAX_INT, "an integer of at least 1")
        for field in ("seed", "jitter", "checkpoint_every_epochs", "checkpoint_every_steps"):
            require(field, 0 <= getattr(self, field) <= MAX_INT, "an integer of at least 0")
        threads, patience, rise, decay = self.threads, self.patience, self.divergence_rise, self.ema_decay
        require(
            "threads",
            threads is None or 1 <= threads <= _MOST_PROCESSES,
            f"an integer from 1 to {_MOST_PROCESSES}, or null",
        )
        require("patience", patience is None or 1 <= patience <= MAX_INT, "an integer of at least 1, or null")
        require("divergence_rise", rise is None or 0 <= rise < math.inf, "a finite number of at least 0, or null")
        require("checkpoint_minutes", 0 <= self.checkpoint_minutes < math.inf, "a finite number of at least 0")
        require("ema_decay", decay is None or 0 < decay < 1, "a number in (0, 1), or null")

    @property
    def dtype(self) -> Any:
        """The ``torch.dtype`` of weights and data."""
        import torch  # the command line lists these options, and resolves their types, without it

        return torch.float64 if self.precision == "64-true" else torch.float32


@dataclass(frozen=True)
class DeviceOptions:
    """Device, and how steps are executed; not part of the recipe's hash."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto for the best available one."""
    devices: int = 1
    """Number of devices; each processes a share of every batch."""
    strategy: Literal["auto", "ddp"] = "auto"
    """Lightning Fabric's strategy for several devices; auto is ddp."""
    timeout: float = 300.0
    """Seconds for which a process waits for the others before it ends the run with an error."""
    compile: Literal["off", "inductor", "aot_eager"] = "off"
    """Backend of torch.compile for the objective: inductor generates code, aot_eager only traces."""
    cuda_graph: bool = False
    """Record the training step, optimizer included, as a CUDA graph and replay it; needs one CUDA device."""
    read_every: int = 20
    """With cuda_graph, number of steps between reads of the results and checks of the learned inverses."""
    matmul: Literal["highest", "high", "medium"] = "highest"
    """Precision of float32 matrix products in training: high is TF32, medium bfloat16. Likelihoods use highest."""

    def __post_init__(self) -> None:
        require = partial(check_option, "device", self)
        require("devices", 1 <= self.devices <= _MOST_PROCESSES, f"an integer from 1 to {_MOST_PROCESSES}")
        require("timeout", 1 <= self.timeout <= 86400, "a number of seconds from 1 to 86400")
        require("read_every", 1 <= self.read_every <= MAX_INT, "an integer of at least 1")
        require("cuda_graph", not self.cuda_graph or self.devices == 1, "false with several devices")


class Options(Protocol):
    """All options of a training loop; a :class:`~snflow.train.Recipe` has them, and so has :class:`FitOptions`."""

    @property
    def optimizer(self) -> OptimizerOptions:
        """Options of the optimizer."""
        ...

    @property
    def schedule(self) -> ScheduleOptions:
        """Options of the learning-rate schedule."""
        ...

    @property
    def training(self) -> TrainingOptions:
        """Number of epochs, batches, validation and checkpoints."""
        ...

    @property
    def device(self) -> DeviceOptions:
        """Device, and how steps are executed."""
        ...


@dataclass(frozen=True)
class FitOptions:
    """Options of a training loop without a recipe."""

    optimizer: OptimizerOptions
    """Options of the optimizer."""
    schedule: ScheduleOptions
    """Options of the learning-rate schedule."""
    training: TrainingOptions
    """Number of epochs, batches, validation and checkpoints."""
    device: DeviceOptions
    """Device, and how steps are executed."""
