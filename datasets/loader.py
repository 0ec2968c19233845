"""Batches of a data set on a device, determined by seed and epoch alone.

Images travel as uint8 and are normalised on the device. Sample order depends on (seed, epoch), the
augmentation of an image on (seed, epoch, index): not on the number of workers, nor on the batch at
which an epoch was interrupted. The global random generators are not touched.
"""

import atexit
import signal
import threading
from collections.abc import Iterator
from itertools import compress

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from console import InputError, end_workers, warn

from .images import Images, Unreadable
from .transforms import augment, generator_for, normalize

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
    share of each batch.

    An image that cannot be read is reported once. In training the next readable one of its class
    replaces it; in validation it is left out, so that a batch may be smaller or missing. Iterating
    raises InputError when more than 1 % of the images cannot be read.
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
        self._order = order
        self._unreadable: dict[str, str] = {}
        self._epochs = 0  # begun so far
        pinned = self.device.type == "cuda"
        if pinned:
            threading.excepthook = pinning_ended
        self._batches = DataLoader(
            Batches(dataset, seed=seed, train=train),
            sampler=order,
            batch_size=None,
            num_workers=num_workers,
            persistent_workers=num_workers > 0,
            pin_memory=pinned,
            worker_init_fn=ignore_signals,
            # By default DataLoader draws from the global generator.
            generator=torch.Generator().manual_seed(seed),
        )

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
        try:
            for batch in self._start():
                if isinstance(batch, InputError):
                    # Not `raise batch`: its traceback and this frame would hold each other, and
                    # workers that end by garbage collection take ten seconds.
                    raise InputError(str(batch))
                images, labels, unreadable = batch
                self._report(unreadable)
                if images is not None:
                    images = images.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
                    yield normalize(images), labels.to(self.device, non_blocking=True)
        # RuntimeError "DataLoader worker": a worker died. ConnectionError, EOFError: it died while
        # it sent a batch. RuntimeError "Pin memory thread": the same, seen through pinned memory.
        except (RuntimeError, ConnectionError, EOFError) as error:
            known = ("DataLoader worker (pid", "Pin memory thread exited")
            if isinstance(error, RuntimeError) and not str(error).startswith(known):
                raise
            raise InputError(
                "a process that loads images was killed, perhaps for want of (shared) memory; "
                "try a smaller --num_workers"
            ) from error

    def _start(self) -> Iterator:
        """Start an epoch of the DataLoader, without torch's handler of SIGCHLD.

        That raises an error wherever the main process happens to be when a worker dies, even
        within a step or while it writes files. Without it the loader notices within five seconds,
        at the next batch.
        """
        self._epochs += 1
        before = signal.getsignal(signal.SIGCHLD)
        batches = iter(self._batches)
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGCHLD, before or signal.SIG_DFL)
        return batches

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


class BatchOrder(Sampler):
    """The batches of one epoch, as (epoch, indices).

    The epoch travels with the indices because persistent workers keep their first copy of the data
    set. A batch holds the same images for any number of processes, of which number `rank` takes
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
        if self.shuffle:
            order = torch.randperm(
                self.num_images, generator=generator_for(self.seed, self.epoch)
            ).tolist()
        else:
            order = list(range(self.num_images))
        for batch in range(self.first_batch, len(self)):
            start = batch * self.batch_size
            indices = order[start : start + self.batch_size]
            yield self.epoch, indices[self.rank :: self.world_size]


class Batches(Dataset):
    """The data set as a worker sees it: an item is a whole batch.

    Item (epoch, indices) is (images uint8 [N, s, s, 3] or None, labels int64 [N], path -> reason of
    unreadable images). An InputError is returned, not raised: DataLoader would bury its line in a
    traceback.
    """

    def __init__(self, dataset: Images, *, seed: int, train: bool) -> None:
        self.dataset = dataset
        self.seed = seed
        self.train = train

    def __getitem__(
        self, key: tuple[int, list[int]]
    ) -> tuple[Tensor | None, Tensor, dict[str, str]] | InputError:
        epoch, indices = key
        images = self.dataset.images(indices)
        unreadable = {image.path: image.reason for image in images if isinstance(image, Unreadable)}
        if self.train:
            try:
                images = [
                    self.substitute(index, unreadable) if isinstance(image, Unreadable) else image
                    for index, image in zip(indices, images, strict=True)
                ]
            except InputError as error:
                return error
            images = [
                augment(image, seed=self.seed, epoch=epoch, index=index)
                for index, image in zip(indices, images, strict=True)
            ]
        elif unreadable:
            readable = [not isinstance(image, Unreadable) for image in images]
            indices, images = list(compress(indices, readable)), list(compress(images, readable))
        # The images are views of [H, W, 3] memory, and quickest to copy in that order.
        batch = torch.stack([image.permute(1, 2, 0) for image in images]) if images else None
        return batch, self.dataset.labels[indices], unreadable

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


def ignore_signals(worker: int) -> None:
    """Leave Ctrl-C and SIGTERM to the main process, although they may reach the whole group.

    The main process saves its state first; the workers end with it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def pinning_ended(error: threading.ExceptHookArgs) -> None:
    """Print the error that ends a thread, but not of torch's thread for pinned memory.

    That ends when a worker is killed, which the loader reports in one line.
    """
    if "_pin_memory_loop" not in getattr(error.thread, "name", ""):
        threading.__excepthook__(error)


# After an uncaught error multiprocessing would wait for the workers for ever.
atexit.register(end_workers)
