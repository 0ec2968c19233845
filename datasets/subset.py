"""Part of a data set: its first classes, and a class-balanced draw of its training images."""

from itertools import zip_longest

import numpy as np
import torch

from console import InputError

from .folder import Found, Samples
from .transforms import generator_for


def first_classes(found: Found, number: int) -> Found:
    """Keep the first `number` classes in both splits.

    Raises InputError unless 2 <= number <= classes, and when no validation image is left.
    """
    if not 2 <= number <= len(found.classes):
        raise InputError(
            f"--max_classes {number} must be from 2 to {len(found.classes)}, the number of classes"
        )
    train, val = (
        take(part, [i for i, label in enumerate(part.labels) if label < number])
        for part in (found.train, found.val)
    )
    if not len(val.labels):
        raise InputError(f"the first {number} classes have no validation images; add classes")
    return Found(found.classes[:number], train, val)


def draw(samples: Samples, number: int, *, seed: int) -> Samples:
    """Draw `number` images in turn from the classes, each in its own order given by the seed.

    A class that is used up is passed over. A smaller draw is a subset of a larger one with the same
    seed. What is drawn keeps its order. Raises InputError when `number` is larger than the number
    of images, or so small that a class is left without one.
    """
    if number > len(samples.labels):
        raise InputError(
            f"--max_samples {number} is more than the {len(samples.labels)} training images; leave "
            "it out to use all"
        )
    labels = np.asarray(samples.labels)
    orders = []
    for label in np.unique(labels):
        places = np.flatnonzero(labels == label)
        order = torch.randperm(len(places), generator=generator_for(seed, int(label)))
        orders.append(places[order.numpy()])
    if number < len(orders):
        raise InputError(
            f"--max_samples {number} is less than the {len(orders)} classes, of which every one "
            "needs an image"
        )
    in_turn = [place for turn in zip_longest(*orders) for place in turn if place is not None]
    return take(samples, sorted(int(place) for place in in_turn[:number]))


def take(samples: Samples, places: list[int]) -> Samples:
    """The samples at `places`."""
    labels = [int(samples.labels[i]) for i in places]
    if isinstance(samples.images, np.ndarray):
        return Samples(samples.images[places], labels)
    return Samples([samples.images[i] for i in places], labels)
