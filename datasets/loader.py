"""Batches of a data set on a device, determined by seed and epoch alone.

Images travel as uint8 and are normalised on the device. Sample order depends on (seed, epoch), the
augmentation of an image on (seed, epoch, index): not on the number of workers, nor on the batch at
which an epoch was interrupted. The global random generators are not touched.
"""

import atexit
import contextlib
import math
import mmap
from collections.abc import Iterator
from itertools import compress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from console import InputError, end_workers, warn

from .images import Images, Unreadable
from .transforms import augment, generator_for, normalize
from .workers import AHEAD, PATIENCE, Pool

MAX_UNREADABLE = 0.01


def make_loader(
    dataset: Images,
    *,
    batch_size: int,
    seed: int,
    train: bool,
    num_workers: int,
    device: torch.device | str,
    rank: int = 0,
    world_size: int = 1,
    drop_last: bool = False,
) -> "Loader":
    """Return the loader of `dataset`.

    train: images are shuffled and augmented anew in every epoch; otherwise they come in order and
    unchanged. num_workers: processes that read images; 0: the calling one does. rank, world_size:
    of distributed training, where batch_size is that of all processes together. drop_last: leave
    out a last batch that is smaller than the others. Raises InputError if there is no batch.

    Nine parameters: each is one that torch's DataLoader or its sampler has, too.
    """
    order = BatchOrder(
        len(dataset),
        batch_size=batch_size,
        seed=seed,
        shuffle=train,
        rank=rank,
        world_size=world_size,
        drop_last=drop_last,
    )
    if train and batch_size < 2 * world_size:
        raise InputError(
            f"a batch of {batch_size} is less than two images for each of {world_size} processes; "
            "choose a larger --batch_size"
        )
    if len(order) == 0:
        raise InputError(
            f"{len(dataset)} images give no batch"
            + (f": training needs at least {order.smallest}" if train else "")
        )
    return Loader(dataset, order, seed=seed, train=train, num_workers=num_workers, device=device)


class Loader:
    """Iterates over one epoch: (images float32 [N, 3, s, s], labels int64 [N]) on `device`.

    Images are normalised and in channels_last. `len()` is the number of batches in a whole epoch,
    num_images the number of images in the data set. In distributed training every process gets its
    share of each batch. patience: seconds in which at least one image must be read.

    An image that cannot be read is reported once. In training the next readable one of its class
    replaces it; in validation it is left out, so that a batch may be smaller or missing. Iterating
    raises InputError when more than 1 % of the images cannot be read, and as Pool.answers does.
    """

    def __init__(
        self,
        dataset: Images,
        order: "BatchOrder",
        *,
        seed: int,
        train: bool,
        num_workers: int,
        device: torch.device | str,
    ) -> None:
        self.num_images = len(dataset)
        self.device = torch.device(device)
        self.patience: float = PATIENCE
        self._order = order
        self._num_workers = num_workers
        self._batches = Batches(dataset, order, seed=seed, train=train)
        self._pool: Pool | None = None
        self._unreadable: dict[str, str] = {}
        self._epochs = 0  # begun so far

    def __len__(self) -> int:
        return len(self._order)

    @property
    def unreadable(self) -> list[str]:
        """Sorted paths of the images that could not be read so far."""
        return sorted(self._unreadable)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch (from 0) to iterate over, and the batch to begin with."""
        self._order.epoch = epoch
        self._order.first_batch = first_batch

    @property
    def last_batch(self) -> int:
        """Images in the last batch of a whole epoch, over all processes."""
        return self._order.last_batch

    def weight(self, batch: int) -> float:
        """Images of this process in a batch, over the mean number per process.

        Gradients of mean losses, weighted by it and averaged over the processes, are the gradient
        of the mean loss of the whole batch.
        """
        return self._order.weight(batch)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self._epochs += 1
        places = AHEAD * self._num_workers or 1
        numbers = range(self._order.first_batch, len(self))
        tasks = ((self._order.epoch, number, i % places) for i, number in enumerate(numbers))
        self.start()
        if self._pool is not None:
            self._pool.patience = self.patience
            batches = self._pool.in_order(tasks, self._take)
        else:
            batches = map(self._take, map(self._batches, tasks))
        yield from filter(None, batches)
        self._batches.release()

    def start(self) -> None:
        """Start the processes that read images, if there are none yet; they stay for all epochs.

        Raises InputError where the system refuses one.
        """
        if self._pool is None and self._num_workers:
            self._batches.share(AHEAD * self._num_workers)
            self._pool = Pool(self._batches, option="--num_workers")
            for _ in range(self._num_workers):
                self._pool.start()

    def _take(self, answer: Any) -> tuple[Tensor, Tensor] | None:
        """The batch of an answer of `Batches`, on the device; None without a readable image."""
        if isinstance(answer, InputError):
            # Not `raise answer`: its traceback and this frame would hold each other.
            raise InputError(str(answer))
        pixels, labels, unreadable = answer
        self._report(unreadable)
        if pixels is None:
            return None
        batch = self._batches.pixels(pixels, len(labels)), torch.from_numpy(labels)
        if self.device.type == "cuda":
            batch = tuple(part.pin_memory().to(self.device, non_blocking=True) for part in batch)
        images, labels = batch
        # Also a copy: the place of the batch is free for another one.
        return normalize(images.to(self.device).permute(0, 3, 1, 2)), labels.to(self.device)

    def _report(self, unreadable: dict[str, str]) -> None:
        """Warn of paths not seen before; raise InputError when they are too many."""
        new = {path: why for path, why in unreadable.items() if path not in self._unreadable}
        self._unreadable.update(new)
        # A process sees its share of the images in one epoch, and all of them over many.
        share = -(-self.num_images // self._order.world_size)
        images = min(self._epochs * share, self.num_images)
        if len(self._unreadable) > MAX_UNREADABLE * images:
            first = self.unreadable[0]
            raise InputError(
                f"{len(self._unreadable)} of {images} images cannot be read, more than 1 %; the "
                f"first is {first}: {self._unreadable[first]}"
            )
        for path, why in new.items():
            warn(f"cannot read {path}: {why}")


class BatchOrder:
    """The batches of one epoch, as (epoch, indices).

    A batch holds the same images for any number of processes, of which number `rank` takes
    every `world_size`-th.
    """

    def __init__(
        self,
        num_images: int,
        *,
        batch_size: int,
        seed: int,
        shuffle: bool,
        rank: int = 0,
        world_size: int = 1,
        drop_last: bool = False,
    ) -> None:
        self.num_images = num_images
        self.rank = rank
        self.world_size = world_size
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.epoch = 0
        self.first_batch = 0
        # BatchNorm cannot train on one image: at 32 x 32 the last maps of ResNet-50 are 1 x 1.
        self.smallest = batch_size if drop_last else 2 * world_size if shuffle else 1
        self._permutation: tuple[int, Tensor] | None = None  # of the newest epoch

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        full, rest = divmod(self.num_images, self.batch_size)
        return full + (rest >= self.smallest)

    @property
    def last_batch(self) -> int:
        """See Loader.last_batch."""
        rest = self.num_images % self.batch_size
        return rest if rest >= self.smallest else self.batch_size

    def weight(self, batch: int) -> float:
        """See Loader.weight."""
        size = min(self.batch_size, self.num_images - batch * self.batch_size)
        return len(range(self.rank, size, self.world_size)) * self.world_size / size

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        for batch in range(self.first_batch, len(self)):
            yield self.epoch, self.indices(self.epoch, batch)

    def indices(self, epoch: int, batch: int) -> list[int]:
        """The images of one batch of an epoch that this process has."""
        if self._permutation is None or self._permutation[0] != epoch:
            order = torch.arange(self.num_images)
            if self.shuffle:
                generator = generator_for(self.seed, epoch)
                order = torch.randperm(self.num_images, generator=generator)
            self._permutation = epoch, order
        start = batch * self.batch_size
        indices = self._permutation[1][start : start + self.batch_size]
        return indices[self.rank :: self.world_size].tolist()


class Batches:
    """The data set as a worker sees it: called with a task, it gives a whole batch.

    A task is (epoch, number of the batch, place), since persistent workers keep their first copy of
    the data set. The answer is (pixels, labels int64 [N], path -> reason of unreadable images);
    pixels: for `pixels`, None without a readable image.

    Pixels lie in memory that the processes share, of no name: /dev/shm may be small, and a pipe is
    slow. A process that was not forked has none, and gives the pixels themselves.
    """

    def __init__(self, dataset: Images, order: BatchOrder, *, seed: int, train: bool) -> None:
        self.dataset = dataset
        self.order = order
        self.seed = seed
        self.train = train
        self.memory: mmap.mmap | None = None
        self.places: Tensor | None = None  # uint8 [places, N, s, s, 3]

    def share(self, places: int) -> None:
        """Reserve memory for so many batches, which processes that are forked now will share.

        Raises InputError where there is not enough.
        """
        images = -(-self.order.batch_size // self.order.world_size)
        shape = (places, min(images, len(self.dataset)), *2 * [self.dataset.image_size], 3)
        try:
            self.memory = mmap.mmap(-1, math.prod(shape))
        except (OSError, OverflowError) as error:
            raise InputError(
                f"not enough memory for {places} batches of {images} images; give a smaller "
                "--num_workers or --batch_size"
            ) from error
        self.places = torch.frombuffer(self.memory, dtype=torch.uint8).view(shape)

    def release(self) -> None:
        """Give the memory back to the system until the next batch is written."""
        if self.memory is not None:
            with contextlib.suppress(OSError, AttributeError):  # Linux only
                self.memory.madvise(mmap.MADV_REMOVE)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "memory": None, "places": None}

    def pixels(self, pixels: int | np.ndarray, count: int) -> Tensor:
        """The images of an answer, uint8 [count, s, s, 3]; valid until its place is used again."""
        if isinstance(pixels, int):
            return self.places[pixels, :count]
        return torch.from_numpy(pixels)

    def __call__(
        self, task: tuple[int, int, int]
    ) -> tuple[int | np.ndarray | None, np.ndarray, dict[str, str]]:
        epoch, number, place = task
        indices = self.order.indices(epoch, number)
        images = self.dataset.images(indices)
        unreadable = {image.path: image.reason for image in images if isinstance(image, Unreadable)}
        if self.train:
            images = [
                self.substitute(index, unreadable) if isinstance(image, Unreadable) else image
                for index, image in zip(indices, images, strict=True)
            ]
            images = [
                augment(image, seed=self.seed, epoch=epoch, index=index)
                for index, image in zip(indices, images, strict=True)
            ]
        elif unreadable:
            readable = [not isinstance(image, Unreadable) for image in images]
            indices, images = list(compress(indices, readable)), list(compress(images, readable))
        labels = self.dataset.labels[indices].numpy()
        if not images:
            return None, labels, unreadable
        # The images are views of [H, W, 3] memory, and quickest to copy in that order.
        views = [image.permute(1, 2, 0) for image in images]
        if self.places is None:
            return torch.stack(views).numpy(), labels, unreadable
        torch.stack(views, out=self.places[place, : len(views)])
        return place, labels, unreadable

    def substitute(self, index: int, unreadable: dict[str, str]) -> Tensor:
        """The next readable image of the class of image `index`; unreadable ones are added.

        Raises InputError if there is none.
        """
        labels = self.dataset.labels
        same = (labels == labels[index]).nonzero().flatten().tolist()
        position = same.index(index)
        for other in same[position + 1 :] + same[:position]:
            (image,) = self.dataset.images([other])
            if not isinstance(image, Unreadable):
                return image
            unreadable[image.path] = image.reason
        path, reason = next(iter(unreadable.items()))
        raise InputError(f"no image of a class can be read, such as {path}: {reason}")


# After an uncaught error multiprocessing would wait for the workers for ever.
atexit.register(end_workers)
