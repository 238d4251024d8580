"""Derivatives along directions, from several threads at once."""

from concurrent.futures import ThreadPoolExecutor

import torch

from snflow.numerics.jacobian import along


def test_threads_differentiate_forward_side_by_side():
    matrix = torch.randn(4, 4)

    def run(seed):
        x, v = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed))
        for _ in range(40):
            value, pushed = along(lambda t: (t @ matrix).tanh(), x, v)
        slope = 1 - value.square()
        return float((pushed - slope * (v @ matrix)).abs().max())

    with ThreadPoolExecutor(8) as pool:
        assert max(pool.map(run, range(8))) < 1e-12
