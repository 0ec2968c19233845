"""Companions of T: norms and angles of the same weights, and their agreement over seeds.

T is one over the distance of fine-tuning, in units of the distance of pre-training. The companions
are computed in the same pass over the same three files and say what T leaves out:

rotation    angle between theta_A and theta_FB: how far fine-tuning turned a layer. Unlike D it does
            not change where normalisation makes the scale of a filter meaningless (layer rotation:
            Carbonnelle and De Vleeschouwer, arXiv 1806.01603).
T_angle     angle(theta_r, theta_FB) / angle(theta_A, theta_FB): the counterpart of T.
left of r   <theta_A, theta_r> / <theta_r, theta_r>: the share of theta_r in theta_A. Weight decay
            alone leaves exp(-decay * sum of the rates / (1 - momentum)) of it (equilibrium of decay
            and rotation: Kosson et al., arXiv 2305.17212).
shrinkage   |theta_FB| / |theta_A|, of which decay alone leaves the same expression.
agreement   mean cosine of the movements of two seeds at right angles to theta_A: 0 by chance, as
            from a shuffled theta_A (the null of Raghu et al., arXiv 1902.07208).
"""

import contextlib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Elements of a block: three of them, and the same in float64, stay in a processor's cache.
BLOCK = 1 << 14
# Companions of a layer, in JSON, CSV and attributes.
COMPANIONS = ("norm_r", "norm_a", "norm_b", "cos_ra", "cos_rb", "cos_ab", "rotation", "t_angle")


class PairSums(NamedTuple):
    """Sums over the elements of theta_r and theta_A, which are the same for every theta_FB."""

    abs_ra: float
    rr: float
    aa: float
    ra: float


class Sums(NamedTuple):
    """Sums over the elements of one or several weights, and their number of elements.

    abs_rb, abs_ab, abs_ra: of absolute differences. rr, aa, bb, ra, rb, ab: of products.
    """

    count: int
    abs_rb: float
    abs_ab: float
    abs_ra: float
    rr: float
    aa: float
    bb: float
    ra: float
    rb: float
    ab: float


def blocks(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """The elements of tensors of one shape, in blocks of at most BLOCK.

    Shorter types than float32 come as float32, where their values are exact.
    """
    type_ = torch.float64 if any(x.dtype == torch.float64 for x in tensors) else torch.float32
    flat = (x.detach().reshape(-1).split(BLOCK) for x in tensors)
    for parts in zip(*flat, strict=True):
        yield tuple(part.to(type_) for part in parts)


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute in one thread: blocks are too small to share, and threads would wait in turn."""
    number = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(number)


def abs_sum(x: Tensor, y: Tensor) -> float:
    """Sum of |x - y| over two blocks, summed in float64."""
    return (x - y).abs_().sum(dtype=torch.float64).item()


def compare_pair(r: Tensor, a: Tensor) -> PairSums:
    """The sums of one weight in theta_r and theta_A."""
    abs_ra = rr = aa = ra = 0.0
    for r_, a_ in blocks(r, a):
        abs_ra += abs_sum(r_, a_)
        r_, a_ = r_.double(), a_.double()
        rr += r_.dot(r_).item()
        aa += a_.dot(a_).item()
        ra += r_.dot(a_).item()
    return PairSums(abs_ra, rr, aa, ra)


def compare(r: Tensor, a: Tensor, b: Tensor, pair: PairSums | None = None) -> Sums:
    """All sums of one weight in one pass.

    r, a, b: the weight in theta_r, theta_A and theta_FB, of one shape. pair: the sums of `r` and
    `a` where they are known already.
    """
    pair = pair or compare_pair(r, a)
    abs_rb = abs_ab = bb = rb = ab = 0.0
    for r_, a_, b_ in blocks(r, a, b):
        abs_rb += abs_sum(r_, b_)
        abs_ab += abs_sum(a_, b_)
        b_ = b_.double()
        bb += b_.dot(b_).item()
        rb += r_.double().dot(b_).item()
        ab += a_.double().dot(b_).item()
    return Sums(b.numel(), abs_rb, abs_ab, bb=bb, rb=rb, ab=ab, **pair._asdict())


def total(sums: Iterable[Sums]) -> Sums:
    """The sums of several weights taken as one vector."""
    return Sums(*map(sum, zip(*sums, strict=True)))


class Companions(NamedTuple):
    """Norms and cosines of the counted weights of a layer, taken as one vector.

    Norms are in [0, inf), cosines in [-1, 1]; None where a vector is 0.
    """

    norm_r: float
    norm_a: float
    norm_b: float
    cos_ra: float | None
    cos_rb: float | None
    cos_ab: float | None
    moved: bool

    @property
    def rotation(self) -> float | None:
        """Angle between theta_A and theta_FB in degrees, in [0, 180]."""
        return angle(self.cos_ab) if self.moved else 0.0

    @property
    def t_angle(self) -> float | None:
        """angle(theta_r, theta_FB) / angle(theta_A, theta_FB); infinite where nothing turned."""
        rotation, from_r = self.rotation, angle(self.cos_rb)
        if rotation is None or from_r is None:
            return None
        if rotation == 0:
            return math.inf if from_r > 0 else math.nan
        return from_r / rotation

    @property
    def left_of_r(self) -> float | None:
        """<theta_A, theta_r> / <theta_r, theta_r>."""
        return self.cos_ra * self.norm_a / self.norm_r if self.cos_ra is not None else None

    @property
    def shrinkage(self) -> float | None:
        """|theta_FB| / |theta_A|."""
        return self.norm_b / self.norm_a if self.norm_a else None


def companions(sums: Sums) -> Companions:
    """Norms and cosines from the sums of a layer."""
    norms = math.sqrt(sums.rr), math.sqrt(sums.aa), math.sqrt(sums.bb)
    r, a, b = norms
    cosines = cosine(sums.ra, r, a), cosine(sums.rb, r, b), cosine(sums.ab, a, b)
    return Companions(*norms, *cosines, moved=sums.abs_ab > 0)


def cosine(dot: float, norm_x: float, norm_y: float) -> float | None:
    """Cosine of two vectors, clipped to [-1, 1]; None where one is 0 or too long for a float."""
    if not norm_x or not norm_y or not math.isfinite(norm_x * norm_y):
        return None
    return max(-1.0, min(1.0, dot / norm_x / norm_y))


def angle(cos: float | None) -> float | None:
    """The angle of a cosine in degrees."""
    return None if cos is None else math.degrees(math.acos(cos))


def left_by_decay(weight_decay: float, sum_lr: float, optimizer: str) -> float:
    """Share of the parameters that weight decay alone leaves after rates that add up to `sum_lr`.

    exp(-decay * sum_lr / (1 - momentum)) for SGD with momentum 0.9, whose gradient holds the decay;
    AdamW decays beside the gradient: exp(-decay * sum_lr).
    """
    momentum = 0.9 if optimizer == "sgd" else 0.0
    return math.exp(-weight_decay * sum_lr / (1 - momentum))


class Agreement:
    """Agreement of the movements of several seeds, from their running sum of unit vectors.

    With u_i the unit vector of the part of theta_FB - theta_A at right angles to theta_A, the mean
    cosine over the pairs of n seeds is (|sum of u_i|^2 - n) / (n (n - 1)). So each file is read
    once, and one accumulator of the network's size is all the memory.
    """

    def __init__(self) -> None:
        self.signs: list[tuple[str, bytes]] = []  # of each file: checks.precision_and_signs
        self.sums: dict[str, list[Tensor]] = {}
        self.counts: dict[str, int] = {}

    def add(
        self, name: str, a: Sequence[Tensor], b: Sequence[Tensor], companions: Companions
    ) -> None:
        """Add the movement of a layer in one seed.

        name: of the layer. a, b: its weights in theta_A and theta_FB. companions: of the layer. A
        layer that did not turn has no direction and is not counted.
        """
        if companions.cos_ab is None or not companions.moved:
            return
        along = companions.cos_ab * companions.norm_b / companions.norm_a

        def across(x: Tensor, y: Tensor) -> Iterator[Tensor]:
            return (y_.double() - along * x_.double() for x_, y_ in blocks(x, y))

        length = math.sqrt(
            sum(d.dot(d).item() for x, y in zip(a, b, strict=True) for d in across(x, y))
        )
        if not length:
            return
        into = self.sums.setdefault(name, [torch.zeros(x.numel()) for x in a])
        self.counts[name] = self.counts.get(name, 0) + 1
        for accumulator, x, y in zip(into, a, b, strict=True):
            for part, d in zip(accumulator.split(BLOCK), across(x, y), strict=True):
                part += d / length

    def layers(self) -> dict[str, float]:
        """Mean cosine over the pairs of seeds of every layer that moved in two or more of them."""
        agreements = {}
        for name, sums in self.sums.items():
            n = self.counts[name]
            if n > 1:
                square = sum(x.double().square().sum().item() for x in sums)
                agreements[name] = (square - n) / (n * (n - 1))
        return agreements
