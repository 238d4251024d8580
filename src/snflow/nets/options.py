"""What a recipe may say about a network, importable without torch."""

from typing import Literal

Activation = Literal["relu", "silu", "elu", "tanh"]
"""What stands between hidden layers: relu fits edges soonest; the others are smooth, and so are the densities."""

LipschitzActivation = Literal["lipswish", "clipswish"]
"""Activations of Lipschitz constant one: x σ(βx) / 1.1, or that of x and of −x side by side."""
