"""The total mass of the densities of runs in the plane, by the rectangle rule: one if the map is one-to-one.

.venv/bin/python benchmarks/mass.py RUN … > results/pairs/mass.txt
"""

from __future__ import annotations

import sys

import torch

from snflow.train.run_folder import load_flow

CELLS, MARGIN = 800, 1.0
"""Cells along each side of the grid, and its margin around the data, as a multiple of the range of the data."""


def main() -> None:
    """Print one line per run."""
    for run in sys.argv[1:]:
        flow, recipe = load_flow(run)
        rows = recipe.load_dataset().train.double()
        low, high = rows.amin(0), rows.amax(0)
        reach = MARGIN * (high - low)
        sides = [torch.linspace(a, b, CELLS) for a, b in zip(low - reach, high + reach, strict=True)]
        cell = torch.stack([side[1] - side[0] for side in sides]).prod().item()
        mass = 0.0
        with torch.no_grad():
            for part in torch.cartesian_prod(*sides).split(20_000):
                mass += flow(part).double().exp().sum().item() * cell
        print(f"{run}: mass {mass:.4f} on {CELLS} × {CELLS} cells")


if __name__ == "__main__":
    main()
