"""Part of a data set: its first classes, a balanced draw of its training images; random labels."""

from itertools import zip_longest

import numpy as np
import torch

from console import InputError

from .folder import Samples, Splits
from .transforms import generator_for


def first_classes(splits: Splits, number: int) -> Splits:
    """Keep the first `number` classes in both splits.

    Raises InputError unless 2 <= number <= classes, and when no validation image is left.
    """
    if not 2 <= number <= len(splits.classes):
        raise InputError(
            f"--max_classes {number} must be from 2 to {len(splits.classes)}, the number of classes"
        )
    train, val = (
        take(part, [i for i, label in enumerate(part.labels) if label < number])
        for part in (splits.train, splits.val)
    )
    if not len(val.labels):
        raise InputError(f"the first {number} classes have no validation images; add classes")
    return splits._replace(classes=splits.classes[:number], train=train, val=val)


def draw(samples: Samples, number: int, *, seed: int) -> Samples:
    """Draw `number` images in turn from the classes, each in its own order given by the seed.

    A class that is used up is passed over. A smaller draw is a subset of a larger one with the same
    seed. The images keep their order. Raises InputError when `number` is larger than the number of
    images, or smaller than that of classes.
    """
    if number > len(samples.labels):
        raise InputError(
            f"--max_samples {number} is more than the {len(samples.labels)} training images; leave "
            "it out to use all"
        )
    labels = np.asarray(samples.labels)
    orders = []
    for label in np.unique(labels):
        indices = np.flatnonzero(labels == label)
        order = torch.randperm(len(indices), generator=generator_for(seed, int(label)))
        orders.append(indices[order.numpy()])
    if number < len(orders):
        raise InputError(
            f"--max_samples {number} is less than the {len(orders)} classes, of which every one "
            "needs an image"
        )
    in_turn = [index for turn in zip_longest(*orders) for index in turn if index is not None]
    return take(samples, sorted(int(index) for index in in_turn[:number]))


def permute_labels(samples: Samples, *, seed: int) -> Samples:
    """The same images with their labels permuted by `seed`: nothing to learn but the images."""
    # One number more than the keys of `draw`, whose permutations must not be repeated here.
    order = torch.randperm(len(samples.labels), generator=generator_for(seed, 0, 0))
    return samples._replace(labels=[int(samples.labels[i]) for i in order])


def take(samples: Samples, indices: list[int]) -> Samples:
    """The samples at `indices`."""
    labels = [int(samples.labels[i]) for i in indices]
    if isinstance(samples.images, np.ndarray):
        return Samples(samples.images[indices], labels)
    return Samples([samples.images[i] for i in indices], labels)
