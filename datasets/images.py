"""The two kinds of data set: image files, and pixels in memory."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from .decode import decode
from .folder import Samples
from .transforms import resize


class Unreadable(Exception):
    """An image file that cannot be read or decoded; arguments: its path, the reason."""


class ImageFiles(Dataset):
    """Images in files; an item is (uint8 [3, image_size, image_size], label).

    labels: int64 [N]. An item that cannot be decoded raises Unreadable.
    """

    def __init__(self, paths: Sequence[str], labels: Sequence[int], *, image_size: int) -> None:
        # One block of memory: with a list, every worker would end up with a copy of all strings,
        # since reading one writes its reference count.
        self.paths = np.array([os.fsencode(path) for path in paths])
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path = self.paths[index]
        try:
            with open(path, "rb", buffering=0) as file:
                image = decode(file.read())
        # PIL's readers raise almost anything on a damaged file: SyntaxError, IndexError, ...
        except Exception as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            raise Unreadable(os.fsdecode(path), reason) from error
        return resize(image, self.image_size), int(self.labels[index])


class ImageArray(Dataset):
    """Images in memory, uint8 [N, H, W, 3]; items and labels as in ImageFiles."""

    def __init__(self, pixels: np.ndarray, labels: Sequence[int], *, image_size: int) -> None:
        self.pixels = torch.from_numpy(np.ascontiguousarray(pixels))
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = self.pixels[index].permute(2, 0, 1)
        return resize(image, self.image_size), int(self.labels[index])


def as_dataset(samples: Samples, *, image_size: int) -> ImageFiles | ImageArray:
    """The data set of one split."""
    kind = ImageArray if isinstance(samples.images, np.ndarray) else ImageFiles
    return kind(samples.images, samples.labels, image_size=image_size)
