"""Intraclass variance D of a data set, and its share of the whole variance, in one pass.

Definitions of ours: the paper plots an intraclass variance D and does not define it.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

GROUPS = 20


class ClassSums:
    """Sums of z over the images of every class, in up to 20 groups a class for the jackknife.

    labels: int64 [N] of the data set, in 0 ... classes - 1. Image i of a class is in its group
    i mod 20; a class of at most 20 images has them one by one. Memory: classes x 20 x p float64,
    16 MB for 50 classes and p = 2048, whatever the number of images (but for one int64 each).

    Numbers of images [classes, groups], sums of z [classes, groups, p] and of ||z||^2 [classes,
    groups] are float64. z is centred at the mean of S, not of the class; what cancels costs as many
    digits as ||z||^2 is larger than D, of sixteen.
    """

    def __init__(self, labels: Tensor, classes: int) -> None:
        sizes = torch.bincount(labels, minlength=classes)
        self.shape = (classes, min(GROUPS, int(sizes.max())))
        order = labels.argsort(stable=True)
        within = torch.empty_like(labels)  # number of an image within its class
        within[order] = torch.arange(len(labels)) - (sizes.cumsum(0) - sizes)[labels[order]]
        self._cell = labels * self.shape[1] + within % self.shape[1]
        self._number = torch.zeros(math.prod(self.shape), dtype=torch.float64)
        self._square = torch.zeros_like(self._number)
        self._z: Tensor | None = None

    def add(self, indices: Tensor, z: Tensor) -> None:
        """Add a batch: indices int64 [n] into the labels, z float64 [n, p]."""
        if self._z is None:
            self._z = z.new_zeros(len(self._number), z.shape[1])
        cell = self._cell[indices]
        self._number += torch.bincount(cell, minlength=len(self._number))
        self._square.index_add_(0, cell, z.square().sum(1))
        self._z.index_add_(0, cell, z)

    def result(self) -> tuple[Tensor, Tensor, Tensor]:
        """Number of images, sum of z, sum of ||z||^2, each by class and group."""
        return (
            self._number.view(self.shape),
            self._z.view(*self.shape, -1),
            self._square.view(self.shape),
        )


class Diversity(NamedTuple):
    """D and D as a share of the variance of the whole data set, with errors.

    classes: int64 indices of the classes that D is the mean over: those of two images or more.
    """

    D: float
    D_error: float
    share: float
    share_error: float
    classes: Tensor


def diversity(sums: ClassSums) -> Diversity:
    """D = (1 / K) sum over classes c of (1 / (n_c - 1)) sum over its images ||z_i - mean_c||^2.

    K: classes of two images or more, of which there must be one. In units of the variance on S, as
    E ||z||^2 = 1 there. The share is D over (1 / (N - 1)) sum over all images ||z_i - mean||^2;
    about 1 where classes do not differ, and more is possible, as D counts all classes alike.

    Errors are jackknife standard errors with the classes and their shares of the images given, the
    images of a class random: error^2 = sum over c of (g_c - 1) / g_c sum over groups h of the
    squared deviation of D without h from its mean over h, from the sums, in closed form. It is the
    delete-one jackknife for classes of at most 20 images, for larger ones delete-a-group with
    g_c = 20. A class of two drops out without either; its deviations are those from D, and so tell
    of the spread between classes. Errors are NaN if no class would be left.
    """
    number, z, square = sums.result()
    n, all_z, all_square = number.sum(1), z.sum(1), square.sum(1)
    by_class = variance(n, all_z, all_square)
    counted = n >= 2
    k = int(counted.sum())
    d = by_class.sum() / k
    whole = (n.sum(), all_z.sum(0), all_square.sum())
    share = d / variance(*whole)

    others = by_class.sum() - by_class
    without = []
    for h in range(number.shape[1]):
        part = (number[:, h], z[:, h], square[:, h])
        left, *less = (a - b for a, b in zip((n, all_z, all_square), part, strict=True))
        d_without = torch.where(left >= 2, (others + variance(left, *less)) / k, others / (k - 1))
        whole_without = variance(*(a - b for a, b in zip(whole, part, strict=True)))
        without.append(torch.stack([d_without, d_without / whole_without]))
    deleted = (number > 0) & counted[:, None]
    d_error, share_error = jackknife(torch.stack(without, 2), torch.stack([d, share]), deleted, n)
    return Diversity(float(d), d_error, float(share), share_error, counted.nonzero().flatten())


def jackknife(without: Tensor, values: Tensor, deleted: Tensor, n: Tensor) -> list[float]:
    """Standard errors of `values` [v], see `diversity`.

    without: [v, classes, groups], the values without a group of a class. deleted: which of these
    count, bool [classes, groups]. n: images [classes].
    """
    groups = deleted.sum(1)
    # A mean over the class, as leaving out any of its images changes its share of all images.
    centre = without.where(deleted, 0).sum(2) / groups
    centre = torch.where(n == 2, values[:, None], centre)
    squares = (without - centre[:, :, None]).square().where(deleted, 0).sum(2)
    weight = (groups - 1).clamp(min=0) / groups.clamp(min=1)
    return (weight * squares).sum(1).sqrt().tolist()


def variance(n: Tensor, z: Tensor, square: Tensor) -> Tensor:
    """Sum of squared deviations over n - 1, from sums of z [..., p] and ||z||^2; 0 for n < 2.

    n and square have one shape, which z has before its last dimension.
    """
    deviations = square - z.square().sum(-1) / n.clamp(min=1)
    # Rounding may leave less than nothing.
    return torch.where(n >= 2, deviations.clamp(min=0) / (n - 1).clamp(min=1), 0.0)
