"""Images of one's own: folders of files and arrays, brought to one size or refused."""

import numpy as np
import pytest
import torch
from PIL import Image

from snflow.data import image_files
from snflow.errors import ConfigError, DataError


def save(folder, sizes=((8, 12),) * 10, suffix="png"):
    """Images that are red on the left, blue on the right and green in the middle of both."""
    for number, (height, width) in enumerate(sizes):
        pixels = np.zeros((height, width, 3), dtype=np.uint8)
        pixels[:, : width // 2, 0] = pixels[:, width // 2 :, 2] = 200
        pixels[height // 4 : height - height // 4, width // 4 : width - width // 4, 1] = 100 + number
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{number}.{suffix}", quality=95)
    return folder


def everything(dataset):
    return torch.cat([dataset.train, dataset.validation, dataset.test])


def test_a_folder_and_its_subfolders(tmp_path):
    save(tmp_path / "a")
    save(tmp_path / "b", suffix="JPG")
    (tmp_path / "notes.txt").write_text("none")
    read = image_files(tmp_path)
    assert (len(read.train), len(read.validation), len(read.test)) == (16, 2, 2)
    assert read.event_shape == (3, 8, 12)
    assert read.num_values == 256
    assert read.train.dtype == torch.uint8
    assert torch.equal(image_files(str(tmp_path)).train, read.train)
    assert image_files(tmp_path, gray=True).event_shape == (1, 8, 12)


def test_shapes(tmp_path):
    save(tmp_path)
    square, crop, stretch = (
        everything(image_files(tmp_path, size=4, shaping=name)) for name in ("square", "crop", "stretch")
    )
    assert square.shape == crop.shape == stretch.shape == (10, 3, 4, 4)
    assert int(crop[:, 1].min()) >= 100  # the middle alone
    assert int(square[:, 1, 0].max()) < 100  # the upper edge, which is not green
    assert int(square[:, 2, :, 0].max()) <= int(stretch[:, 2, :, 0].max()) + 5
    assert int(stretch[:, 1, 1:3, 1:3].min()) > 60


def test_different_sizes_need_one(tmp_path):
    save(tmp_path, sizes=[(8, 8)] * 9 + [(8, 10)])
    with pytest.raises(DataError, match=r"9\.png: expected 8 × 8 pixels, as in 0\.png, got 8 × 10; set size"):
        image_files(tmp_path)
    assert image_files(tmp_path, size=8).event_shape == (3, 8, 8)
    with pytest.raises(DataError, match="at least 9 × 9 pixels, got 8 × 8"):
        image_files(tmp_path, size=9, shaping="crop")


def test_images_are_upright_and_without_alpha(tmp_path):
    for number in range(10):
        image = Image.new("RGBA", (4, 2), (number, 0, 0, 0))
        exif = Image.Exif()
        exif[0x0112] = 6  # on its side
        image.save(tmp_path / f"{number}.png", exif=exif)
    assert image_files(tmp_path).event_shape == (3, 4, 2)


def test_damaged_files_are_named(tmp_path):
    save(tmp_path)
    content = (tmp_path / "3.png").read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"no image"):
        (tmp_path / "3.png").write_bytes(damaged)
        with pytest.raises(DataError, match=r"3\.png: expected a PNG or JPEG image"):
            image_files(tmp_path)


def test_arrays(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 3, 4, 6), dtype=np.uint8)
    np.save(tmp_path / "a.npy", images)
    read = image_files(tmp_path / "a.npy")
    assert read.event_shape == (3, 4, 6)
    assert sorted(map(torch.Tensor.tolist, everything(read).sum((1, 2, 3)))) == sorted(images.sum((1, 2, 3)).tolist())
    with pytest.raises(ConfigError, match="size and gray only for a folder"):
        image_files(tmp_path / "a.npy", size=4)
    np.save(tmp_path / "b.npy", images / 255)
    with pytest.raises(DataError, match=r"uint8 with shape .* got shape \(10, 3, 4, 6\) of float64"):
        image_files(tmp_path / "b.npy")


def test_wrong_options(tmp_path):
    with pytest.raises(DataError, match=r"files that end in .*, got none; check the path"):
        image_files(tmp_path)
    with pytest.raises(DataError, match="got no such path"):
        image_files(tmp_path / "none")
    with pytest.raises(ConfigError, match="shaping to be one of square, crop, stretch"):
        image_files(tmp_path, shaping="fit")
    with pytest.raises(ConfigError, match="validation_fraction and test_fraction"):
        image_files(tmp_path, test_fraction=0.95)
