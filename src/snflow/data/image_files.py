"""Images of one's own: a folder of PNG or JPEG files, or an array."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from snflow.data.dataset import Dataset, split_rows
from snflow.data.files import parsing
from snflow.errors import ConfigError, DataError, check_choice, check_count, check_seed, checked_arguments

Shaping = Literal["square", "crop", "stretch"]

_SUFFIXES = (".png", ".jpg", ".jpeg")


@checked_arguments("data.image_files")
def image_files(
    path: str | Path,
    *,
    size: int | None = None,
    shaping: Shaping = "square",
    gray: bool = False,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.1,
    seed: int = 0,
) -> Dataset:
    """Images from a folder of PNG or JPEG files, its subfolders included, or from a .npy file; 256 values.

    Args:
        path: Folder, or .npy file of bytes with shape (images, channels, height, width).
        size: Height and width of the images of a folder; null if they all have the same size, which is kept.
        shaping: How a file becomes size × size pixels: "square" takes the largest square in its middle and resizes it,
            "crop" takes size × size pixels in its middle, "stretch" resizes the whole image.
        gray: Whether to convert files to gray; otherwise they have three channels.
        validation_fraction: Fraction of the images used to select the best epoch.
        test_fraction: Fraction of the images used for the reported likelihood.
        seed: Seed of the random split.

    Returns:
        Images with shape ``(N, channels, height, width)``, uint8, from 0 to 255.

    Raises:
        DataError: there are no images, one is damaged, smaller than a crop, or of another size than the first.
        ConfigError: an option is out of range.

    Example:
        >>> import pathlib, tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for number in range(10):
        ...         Image.new("RGB", (20, 12), (number, 0, 0)).save(pathlib.Path(folder, f"{number}.png"))
        ...     image_files(folder, size=8).train.shape
        torch.Size([8, 3, 8, 8])
    """
    where = "data.image_files"
    check_choice(where, "shaping", shaping, Shaping)
    check_seed(where, "seed", seed)
    if size is not None:
        check_count(where, "size", size, most=2**14)
    if not (0 < validation_fraction < 1 and 0 < test_fraction < 1 and validation_fraction + test_fraction < 1):
        raise ConfigError(
            where,
            expected="validation_fraction and test_fraction between 0 and 1, and below 1 together",
            got=f"{validation_fraction!r} and {test_fraction!r}",
        )
    source = Path(path).expanduser()
    if source.is_dir():
        images = _read_folder(source, size, shaping, gray)
    elif source.suffix == ".npy" and source.is_file():
        images = _read_array(source, size, gray)
    else:
        got = "no such path" if not source.exists() else "a file of another kind"
        raise DataError(where, expected=f"a folder of images or a .npy file at {source}", got=got, fix="set path")
    validation, test = (round(fraction * len(images)) for fraction in (validation_fraction, test_fraction))
    sizes = (len(images) - validation - test, validation, test)
    return Dataset(source.name or str(source), *split_rows(torch.from_numpy(images), sizes, seed), num_values=256)


def _read_folder(folder: Path, size: int | None, shaping: Shaping, gray: bool) -> NDArray[np.uint8]:
    """Read the images of a folder, in the order of their names: ``(N, channels, height, width)``."""
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file())
    if not files:
        got = "none"
        raise DataError(str(folder), expected="files that end in .png, .jpg or .jpeg", got=got, fix="check the path")
    first = _read_image(files[0], size, shaping, gray)
    images = np.empty((len(files), *first.shape), dtype=np.uint8)
    for number, file in enumerate(files):
        image = first if number == 0 else _read_image(file, size, shaping, gray)
        if image.shape != first.shape:
            raise DataError(
                str(file),
                expected="{1} × {2} pixels, as in {name}".format(*first.shape, name=files[0].name),
                got="{1} × {2}".format(*image.shape),
                fix="set size, to which all images are brought",
            )
        images[number] = image
    return images


def _read_image(file: Path, size: int | None, shaping: Shaping, gray: bool) -> NDArray[np.uint8]:
    """Read one image, upright: ``(channels, height, width)``."""
    from PIL import Image, ImageOps  # the import takes a while, and few datasets need it

    with parsing(file, "a PNG or JPEG image", "remove the file or save it again"), Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened).convert("L" if gray else "RGB")
        if size is not None:
            width, height = image.size
            side = {"square": min(width, height), "crop": size, "stretch": 0}[shaping]
            if side > min(width, height):
                raise DataError(
                    str(file),
                    expected=f"at least {size} × {size} pixels",
                    got=f"{height} × {width}",
                    fix="lower size, or set shaping to 'square'",
                )
            left, top = (width - side) // 2, (height - side) // 2
            box = (left, top, left + side, top + side) if side else (0, 0, width, height)
            image = image.resize((size, size), Image.Resampling.LANCZOS, box=box)
        pixels = np.asarray(image, dtype=np.uint8)
    return pixels[None] if gray else pixels.transpose(2, 0, 1)


def _read_array(file: Path, size: int | None, gray: bool) -> NDArray[np.uint8]:
    with parsing(file, "an array of bytes", "save it again with numpy.save"), file.open("rb") as opened:
        images = np.load(opened, allow_pickle=False)
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        got = f"shape {images.shape} of {images.dtype}" if isinstance(images, np.ndarray) else "an archive"
        raise DataError(
            str(file), expected="uint8 with shape (images, channels, height, width)", got=got, fix="convert the array"
        )
    if size is not None or gray:
        raise ConfigError(
            "data.image_files", expected="size and gray only for a folder", got=f"{file.name}", fix="leave them out"
        )
    return images
