"""What a recipe may say about a network, importable without torch."""

from typing import Literal

Activation = Literal["relu", "silu", "elu", "tanh"]
"""What stands between hidden layers: relu fits edges soonest; the others are smooth, and so are the densities."""
