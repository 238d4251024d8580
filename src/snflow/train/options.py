"""Options of training."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from snflow.errors import check_option


@dataclass(frozen=True)
class OptimizerOptions:
    """Adam (Kingma & Ba 2015), fused into one kernel where the device has it."""

    learning_rate: float = 1e-3
    """Peak learning rate, reached at the end of the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Decay of the running mean of the gradient and of its square, per step."""
    eps: float = 1e-8
    """Added to the root of the second moment."""
    weight_decay: float = 0.0
    """L2 penalty, added to the gradient as weight_decay × parameter."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient, in nats per unit of the parameters; null leaves the gradient alone."""

    def __post_init__(self) -> None:
        require = partial(check_option, "optimizer", self)
        check_option(
            "optimizer", self, "learning_rate", 0 < self.learning_rate < float("inf"), "a finite number above 0"
        )
        require("betas", all(0 <= b < 1 for b in self.betas), "two numbers in [0, 1)")
        require("eps", self.eps > 0, "a number above 0")
        require("weight_decay", self.weight_decay >= 0, "a number of at least 0")
        check_option(
            "optimizer", self, "clip_norm", self.clip_norm is None or self.clip_norm > 0, "a number above 0, or null"
        )


@dataclass(frozen=True)
class ScheduleOptions:
    """The learning rate as a function of the step: a linear warm-up, then constant or cosine."""

    warmup_epochs: float = 0.0
    """Epochs in which the learning rate rises linearly to its peak."""
    decay: Literal["constant", "cosine"] = "constant"
    """What follows the warm-up: the peak rate, or half a cosine down to final_fraction of it at the last step."""
    final_fraction: float = 0.0
    """Learning rate at the last step of a cosine, as a fraction of the peak."""

    def __post_init__(self) -> None:
        require = partial(check_option, "schedule", self)
        check_option(
            "schedule", self, "warmup_epochs", 0 <= self.warmup_epochs < float("inf"), "a finite number of at least 0"
        )
        require("final_fraction", 0 <= self.final_fraction <= 1, "a number in [0, 1]")


@dataclass(frozen=True)
class TrainingOptions:
    """How long, in which batches, and what is kept."""

    epochs: int = 100
    """Passes over the training data."""
    batch_size: int = 100
    """Rows a step, over all devices together; a last short batch is dropped."""
    eval_batch_size: int = 500
    """Rows at a time when the exact likelihood is computed."""
    seed: int = 0
    """Seed of weights, batch order, noise and pictures."""
    flip: bool = False
    """Mirror each training image left to right with probability one half."""
    jitter: int = 0
    """Move each training image by up to so many pixels along each side."""
    validate_every: int = 1
    """Epochs between two exact validation likelihoods; the last epoch always has one."""
    patience: int | None = None
    """Stop after so many validations without a better one; null never stops early."""
    ema_decay: float | None = None
    """Decay of the moving average of the weights, per step; evaluation and the best checkpoint then use the average."""
    on_nonfinite: Literal["stop", "skip"] = "stop"
    """What a non-finite objective or gradient does: end the run (exit code 3), or leave out that step."""
    max_skips: int = 10
    """Steps left out in a row before the run ends all the same."""
    divergence_rise: float | None = 0.05
    """Nats a dimension by which a validation NLL may be above the best while a learned inverse is lost; null: any."""
    measure_angle: bool = False
    """After each epoch measure the angle between each layer's training gradient and the exact one: layers.csv."""
    checkpoint_minutes: float = 1.0
    """Longest time without a checkpoint, inside an epoch too; each better validation and the end have one anyway."""
    checkpoint_every_epochs: int = 0
    """Epochs between two checkpoints; 0 leaves it to checkpoint_minutes."""
    checkpoint_every_steps: int = 0
    """Steps between two checkpoints; 0 leaves it to checkpoint_minutes."""
    precision: Literal["32-true", "64-true"] = "32-true"
    """Floating-point numbers of weights and data: 32 or 64 bits. Likelihoods are always summed in 64."""
    threads: int | None = None
    """Threads of one operation on the CPU; null leaves torch's choice. A resumed run is bit-identical on as many."""

    def __post_init__(self) -> None:
        require = partial(check_option, "training", self)
        for field in ("epochs", "batch_size", "eval_batch_size", "validate_every", "max_skips"):
            require(field, getattr(self, field) >= 1, "a whole number of at least 1")
        for field in ("seed", "jitter", "checkpoint_every_epochs", "checkpoint_every_steps"):
            require(field, 0 <= getattr(self, field) < 2**63, "a whole number of at least 0")
        for field in ("patience", "threads"):
            value = getattr(self, field)
            require(field, value is None or value >= 1, "a whole number of at least 1, or null")
        rise = self.divergence_rise
        check_option("training", self, "divergence_rise", rise is None or rise >= 0, "a number of at least 0, or null")
        require("checkpoint_minutes", self.checkpoint_minutes >= 0, "a number of at least 0")
        check_option(
            "training",
            self,
            "ema_decay",
            self.ema_decay is None or 0 < self.ema_decay < 1,
            "a number in (0, 1), or null",
        )


@dataclass(frozen=True)
class DeviceOptions:
    """Where the run computes. No part of what a recipe is: its hash leaves this section out."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """Kind of device; auto takes the best one present."""
    devices: int = 1
    """Number of devices; each takes its slice of every batch."""
    strategy: Literal["auto", "ddp"] = "auto"
    """How several devices share the work; auto takes ddp for more than one."""
    compile: Literal["off", "inductor", "aot_eager"] = "off"
    """torch.compile of the objective, by this backend: inductor generates code, aot_eager only traces."""
    cuda_graph: bool = False
    """Record a whole training step, optimizer included, as a CUDA graph and replay it: one device, of kind cuda."""
    read_every: int = 20
    """cuda_graph: steps between two looks at the numbers of the replayed steps, and at the learned inverses."""
    matmul: Literal["highest", "high", "medium"] = "highest"
    """Precision of float32 matrix products in training steps: high is TF32, medium bfloat16. Likelihoods: highest."""

    def __post_init__(self) -> None:
        require = partial(check_option, "device", self)
        require("devices", self.devices >= 1, "a whole number of at least 1")
        require("read_every", self.read_every >= 1, "a whole number of at least 1")
        require("cuda_graph", not self.cuda_graph or self.devices == 1, "false with several devices")
