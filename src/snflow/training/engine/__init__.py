"""The training loop on Lightning Fabric: steps, schedule, guard against non-finite numbers, checkpoints, signals."""
