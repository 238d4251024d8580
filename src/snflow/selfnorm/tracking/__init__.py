"""How a learned inverse is kept near the inverse when gradients alone do not: steps of its own, and repairs."""
