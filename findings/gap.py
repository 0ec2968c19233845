"""Domain gap: G (squared MMD) and the Frechet distance of two sets of features, on one scale.

Definitions of ours: the paper plots a domain gap G and does not define it. S are features of source
images, B of target images; both are measured in units of S.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from console import InputError

BLOCK = 250
MIN_BLOCK = 10
MAX_BLOCKS = 20
# With fewer blocks than this they are made smaller, as the standard error comes from their spread.
MIN_BLOCKS = 4
# Images a side that are drawn: up to one in a hundred may be unreadable, and drops out.
CHOSEN = MAX_BLOCKS * BLOCK * 101 // 100
FRECHET_IMAGES = 1000


class Moments:
    """Number, mean [p] and summed squared deviation of rows, batch by batch, in float64.

    Merging as in Chan, Golub and LeVeque (1979): nothing cancels, however far the mean is from 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self.mean: Tensor | float = 0.0
        self.squares = 0.0

    def add(self, x: Tensor) -> None:
        """Add the rows of [n, p], n at least 1."""
        x = x.double()
        mean = x.mean(0)
        shift = mean - self.mean
        number = self.number + len(x)
        self.mean = self.mean + shift * (len(x) / number)
        self.squares += float((x - mean).square().sum())
        self.squares += float(shift.square().sum()) * self.number * len(x) / number
        self.number = number


class Scale(NamedTuple):
    """z = (phi - mean) / unit; then E ||z||^2 = 1 on S, whatever the units of phi.

    mean: float64 [p], of S. unit: s sqrt(p), s^2 the mean over coordinates of the variance on S.
    """

    mean: Tensor
    unit: float

    def z(self, phi: Tensor) -> Tensor:
        """float64 [n, p] of phi [n, p]."""
        return (phi.double() - self.mean) / self.unit


def scale_of(source: Moments) -> Scale:
    """The scale of S. Raises InputError where S does not vary."""
    # p coordinates: s^2 p = sum of their variances.
    unit = math.sqrt(source.squares / (source.number - 1))
    if unit == 0:
        raise InputError("the features of all source images are the same; theta_A tells nothing")
    return Scale(source.mean, unit)


def bandwidth2(z: Tensor) -> float:
    """h^2 = half the median squared distance within z [n, p], of the n (n - 1) / 2 pairs.

    Memory: 4 n (n - 1) bytes, 16 MB for 2,000 images.
    """
    h2 = float(torch.pdist(z.double()).median()) ** 2 / 2
    if h2 == 0:
        raise InputError(
            "half of the source images have the same features as another; theta_A tells nothing"
        )
    return h2


def block_layout(source_images: int, target_images: int) -> tuple[int, int]:
    """Return (m, b): b blocks of m images a side.

    m = 250 and b = min(floor(n_S / m), floor(n_B / m), 20); where b would be under 4, the largest m
    that gives 4. Raises InputError where that m is under 10.
    """
    fewest = min(source_images, target_images)
    m = min(BLOCK, fewest // MIN_BLOCKS)
    if m < MIN_BLOCK:
        raise InputError(
            f"{source_images} source and {target_images} target images are too few for G: "
            f"{MIN_BLOCKS} blocks of {MIN_BLOCK} images need {MIN_BLOCKS * MIN_BLOCK} a side"
        )
    return m, min(fewest // m, MAX_BLOCKS)


class Gap(NamedTuple):
    """G, its standard error, and the blocks it is the mean over: how many, images a side."""

    value: float
    error: float
    blocks: int
    block_size: int


def gap(s: Tensor, b: Tensor, h2: float) -> Gap:
    """G: the unbiased squared MMD between z of S [n_S, p] and of B [n_B, p], both in random order.

    Mean over disjoint blocks, the first m rows being the first block; standard error = sd / sqrt(b)
    over them. 0 for equal distributions, at most 2; the estimate may be negative. No bootstrap: its
    duplicates are at distance 0 and would bias it. h2: `bandwidth2` of S.
    """
    m, blocks = block_layout(len(s), len(b))
    values = torch.tensor(
        [mmd2(s[i : i + m], b[i : i + m], h2) for i in range(0, m * blocks, m)],
        dtype=torch.float64,
    )
    return Gap(float(values.mean()), float(values.std()) / math.sqrt(blocks), blocks, m)


def mmd2(x: Tensor, y: Tensor, h2: float) -> float:
    """Unbiased squared MMD of x, y [m, p] each, kernel k(z, z') = exp(-||z - z'||^2 / (2 h^2)).

    Gretton et al. (2012), equation 3: no image is compared with itself, within x and within y.
    """
    m = len(x)
    within = sum(float(kernel(z, z, h2).fill_diagonal_(0).sum()) for z in (x, y))
    return within / (m * (m - 1)) - 2 * float(kernel(x, y, h2).mean())


def kernel(x: Tensor, y: Tensor, h2: float) -> Tensor:
    """exp(-||x_i - y_j||^2 / (2 h^2)), float64 [len(x), len(y)]."""
    return torch.exp(torch.cdist(x.double(), y.double()).square() / (-2 * h2))


def frechet(s: Tensor, b: Tensor) -> tuple[float, int]:
    """Return (Frechet distance between normal distributions fitted to z of S and of B, n).

    ||mean_S - mean_B||^2 + tr(C_S + C_B - 2 (C_S^1/2 C_B C_S^1/2)^1/2), squared units of z, from
    the first n = min(1000, n_S, n_B) rows of either: it is biased upward as p / n, so that only
    values of equal n compare. Dowson and Landau (1982).
    """
    n = min(FRECHET_IMAGES, len(s), len(b))
    x, y = s[:n].double(), b[:n].double()
    shift = float((x.mean(0) - y.mean(0)).square().sum())
    x, y = ((z - z.mean(0)) / math.sqrt(n - 1) for z in (x, y))
    # With C_S = x'x and C_B = y'y the trace of the root is the sum of the singular values of x y'.
    # These [n, n] numbers need no [p, p] root, whose many eigenvalues near 0 would each add the
    # square root of a rounding error.
    spread = float(x.square().sum() + y.square().sum())
    return shift + spread - 2 * float(torch.linalg.svdvals(x @ y.T).sum()), n
