"""The order of training batches: a pure function of (seed, epoch), the same in every process, resumable anywhere."""

import pytest
import torch

from snflow.data import Batches, in_order
from snflow.errors import ConfigError


def test_an_epoch_visits_every_row_once():
    order = Batches(torch.arange(103), 10, seed=3).order(7)
    assert order.dtype == torch.int64
    assert torch.equal(order.sort().values, torch.arange(103))


def test_batches_follow_the_order_and_drop_the_incomplete_one():
    data = torch.randint(255, (103, 1, 2, 2), dtype=torch.uint8)
    batches = Batches(data, 10, seed=3)
    assert batches.steps_per_epoch == 10
    seen = list(batches.epoch(7))
    assert [batch.shape for batch, _ in seen] == [(10, 1, 2, 2)] * 10
    assert seen[0][0].dtype == torch.uint8
    assert torch.equal(torch.cat([batch for batch, _ in seen]), data[batches.order(7)[:100]])


def test_contexts_go_with_their_rows():
    data = torch.arange(103)
    for rows, context in Batches(data, 10, context=10 * data, seed=3).epoch(7):
        assert torch.equal(context, 10 * rows)


def test_order_is_the_same_in_every_process():
    # written down once: Python's own hash() would give other numbers in the next process
    assert Batches(torch.arange(8), 2, seed=0).order(0).tolist() == [6, 4, 2, 5, 1, 7, 0, 3]
    assert Batches(torch.arange(8), 2, seed=0).order(1).tolist() == [1, 2, 0, 3, 5, 7, 4, 6]


def test_orders_differ_between_epochs_and_seeds():
    orders = {(s, e): Batches(torch.arange(50), 5, seed=s).order(e).tolist() for s in range(3) for e in range(3)}
    assert len({tuple(order) for order in orders.values()}) == 9


def test_global_random_state_is_neither_used_nor_changed():
    batches = Batches(torch.arange(50), 5, seed=0)
    torch.manual_seed(1)
    first, state = batches.order(4), torch.get_rng_state()
    torch.manual_seed(2)
    assert torch.equal(batches.order(4), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("start", [0, 1, 6, 10])
def test_a_resumed_epoch_has_the_same_tail(start):
    data = torch.randn(103, 2)
    whole = list(Batches(data, 10, seed=3).epoch(2))
    tail = list(Batches(data, 10, seed=3).epoch(2, start=start))
    assert len(tail) == 10 - start
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(whole[start:], tail, strict=True))


def test_in_order_covers_all_rows():
    data = torch.arange(25)
    assert [len(batch) for batch in in_order(data, 10)] == [10, 10, 5]
    assert torch.equal(torch.cat(list(in_order(data, 10))), data)
    assert list(in_order(data[:0], 10)) == []


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Batches(torch.arange(5), 6), "batch_size ≤ 5, the number of rows, got 6; use smaller batches"),
        (lambda: Batches(torch.arange(5), 0), "batch_size ≥ 1, got 0"),
        (lambda: Batches(torch.arange(5), 2.0), "batch_size ≥ 1, got 2.0"),
        (lambda: Batches(torch.arange(5), 2).epoch(0, start=3), "0 ≤ start ≤ 2, got 3"),
        (lambda: Batches(torch.arange(5), 2).epoch(0, start=-1), "0 ≤ start ≤ 2, got -1"),
        (lambda: in_order(torch.arange(5), 0), "batch_size ≥ 1, got 0"),
    ],
)
def test_misuse(call, message):
    with pytest.raises(ConfigError, match=message):
        call()
