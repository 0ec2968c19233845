"""The two kinds of data set: image files, and pixels in memory."""

import errno
import os
import stat
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from console import InputError

from .decode import decode, stderr_to
from .folder import Samples
from .transforms import resize
from .workers import alive, reason

# Half of the system calls of Python's open, and no wait for what is at the other end.
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
# Errors of opening a file that are no fault of it.
OWN_FAULTS = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


class Unreadable(Exception):
    """An image file that cannot be read or decoded."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason


class Images(Dataset):
    """A labelled data set: an item is (image uint8 [3, image_size, image_size], label).

    labels: int64 [N]. An item that cannot be read raises Unreadable; `images`, for whole batches,
    returns it in the place of the image instead.
    """

    def __init__(self, labels: Sequence[int], *, image_size: int) -> None:
        self.labels = torch.tensor(labels, dtype=torch.int64)
        self.image_size = image_size

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        (image,) = self.images([index])
        if isinstance(image, Unreadable):
            raise image
        return image, int(self.labels[index])

    def images(self, indices: Sequence[int]) -> list[Tensor | Unreadable]:
        """The images at `indices`, each uint8 [3, image_size, image_size]."""
        raise NotImplementedError


class ImageFiles(Images):
    """Images in files, decoded anew every time."""

    decode = staticmethod(decode)

    def __init__(self, paths: Sequence[str], labels: Sequence[int], *, image_size: int) -> None:
        super().__init__(labels, image_size=image_size)
        # One block of memory: of a list every worker would end up with a copy, since reading a
        # string writes its reference count.
        self.paths = np.array([os.fsencode(path) for path in paths])

    def images(self, indices: Sequence[int]) -> list[Tensor | Unreadable]:
        # Reading all before decoding all is twice as fast for small images: the processor's caches
        # hold the code of one step at a time.
        images: list[Tensor | Unreadable] = []
        files = [read_file(self.paths[index]) for index in indices]
        with stderr_to(None):
            for index, data in zip(indices, files, strict=True):
                try:
                    if isinstance(data, OSError):
                        raise data
                    images.append(resize(self.decode(data), self.image_size))
                # PIL's readers raise almost anything on a damaged file: SyntaxError, IndexError ...
                except Exception as error:
                    refuse_own_fault(self.paths[index], error)
                    why = getattr(error, "strerror", None) or str(error) or type(error).__name__
                    images.append(Unreadable(os.fsdecode(self.paths[index]), why))
                alive()
        return images


class ImageArray(Images):
    """Images in memory, uint8 [N, H, W, 3]."""

    def __init__(self, pixels: np.ndarray, labels: Sequence[int], *, image_size: int) -> None:
        super().__init__(labels, image_size=image_size)
        self.pixels = torch.from_numpy(np.ascontiguousarray(pixels))

    def images(self, indices: Sequence[int]) -> list[Tensor | Unreadable]:
        images: list[Tensor | Unreadable] = []
        for index in indices:
            images.append(resize(self.pixels[index].permute(2, 0, 1), self.image_size))
            alive()
        return images


def read_file(path: bytes) -> bytes | OSError:
    """The bytes of a file, or the error of reading it.

    Raises InputError where this process may open no more files, or has no memory.
    """
    alive()
    try:
        # Opening a named pipe would wait for its writer; the flag is for one that comes between.
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            return OSError(errno.EINVAL, "no regular file")
        descriptor = os.open(path, FLAGS)
        try:
            parts = [os.read(descriptor, status.st_size + 1)]
            # Less than all: a file on a network, or one of more than 2 GiB.
            while len(parts[-1]) and sum(map(len, parts)) != status.st_size:
                parts.append(os.read(descriptor, 1 << 20))
        finally:
            os.close(descriptor)
        return b"".join(parts)
    except OSError as error:
        refuse_own_fault(path, error)
        return error


def refuse_own_fault(path: bytes, error: Exception) -> None:
    """Raise InputError for an error that tells of this process, and nothing of the image."""
    if isinstance(error, OSError) and error.errno in OWN_FAULTS:
        raise InputError(
            f"cannot read {os.fsdecode(path)}: {reason(error)}; give fewer processes that load "
            "images"
        ) from error


def as_dataset(samples: Samples, *, image_size: int) -> Images:
    """The data set of one split."""
    kind = ImageArray if isinstance(samples.images, np.ndarray) else ImageFiles
    return kind(samples.images, samples.labels, image_size=image_size)
