"""Layers of random sizes and options, on data of random scale: the contract holds for untried combinations."""

import pytest
import torch

from random_layers import KINDS, case_of
from snflow.testing import checks

SEEDS = range(90)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_random_layer_keeps_the_contract(seed):
    torch.manual_seed(seed)
    name, case = case_of(seed)
    try:
        checks.check_round_trip(case)
        checks.check_log_det(case)
        checks.check_shapes(case)
    except Exception as error:
        error.add_note(f"seed {seed}: {name}, events {case.event_shape}: {case.layer()}")
        raise


def test_every_kind_is_drawn_often():
    drawn = [case_of(seed)[0] for seed in SEEDS]
    assert all(drawn.count(kind.__name__) >= 8 for kind in KINDS)
