"""Flips and shifts of training images: the right pixels, every outcome, and the same after a resume."""

import pytest
import torch
from torch.nn import functional

from snflow.data import Augmentation, Batches
from snflow.errors import ConfigError, ShapeError


def augmented(image, rows, columns, flipped):
    """By hand: flip, pad with the edge, crop."""
    image = image.flip(-1) if flipped else image
    padded = functional.pad(image[None].double(), (1, 1, 1, 1), mode="replicate")[0]
    height, width = image.shape[-2:]
    return padded[:, 1 + rows : 1 + rows + height, 1 + columns : 1 + columns + width]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float64])
@pytest.mark.parametrize(("flip", "jitter"), [(True, 0), (False, 1), (True, 1)])
def test_each_image_is_one_of_the_outcomes_and_every_outcome_occurs(dtype, flip, jitter):
    image = torch.randint(256, (3, 4, 5)).to(dtype)
    found = Augmentation(flip, jitter)(image.expand(500, 3, 4, 5), torch.Generator().manual_seed(0))
    assert found.dtype == dtype
    steps = range(-jitter, jitter + 1)
    outcomes = [augmented(image, r, c, m) for m in ((False, True) if flip else (False,)) for r in steps for c in steps]
    counts = torch.stack([(found.double() == outcome).flatten(1).all(1) for outcome in outcomes]).sum(1)
    assert int(counts.sum()) == 500
    assert counts.min() > 0.5 * 500 / len(outcomes)


def test_no_change_is_the_same_tensor():
    images = torch.rand(2, 1, 3, 3)
    assert Augmentation()(images, torch.Generator()) is images


def test_a_resumed_epoch_has_the_same_images():
    data = torch.randint(256, (12, 1, 4, 4), dtype=torch.uint8)
    batches = Batches(data, 3, augmentation=Augmentation(flip=True, jitter=1))

    def images(epoch):
        return [rows for rows, _ in epoch]

    whole, tail = images(batches.epoch(2)), images(batches.epoch(2, start=2))
    assert all(map(torch.equal, whole[2:], tail))
    assert not all(map(torch.equal, whole, images(Batches(data, 3).epoch(2))))
    assert not all(map(torch.equal, whole, images(batches.epoch(3))))


def test_rows_that_are_not_images_are_refused():
    with pytest.raises(ShapeError, match="leave flip and jitter out"):
        Augmentation(flip=True)(torch.zeros(3, 4), torch.Generator())


@pytest.mark.parametrize("jitter", [-1, 0.5])
def test_jitter_out_of_range_is_refused(jitter):
    with pytest.raises(ConfigError, match=f"Augmentation: expected jitter ≥ 0, got {jitter}"):
        Augmentation(jitter=jitter)
