"""The published transforms on uint8 tensors, and the one place of normalisation.

Training: resize to (s, s), RandomResizedCrop(s), horizontal flip. Validation: resize to (s, s), no
centre crop. The original's colour jitter has strength 0 throughout and is left out.

Resizing is bilinear with antialias and gives PIL's pixels up to rounding: 0.005 levels on average.
Pillow 12 and later exchange the two passes for tall images, where it is 0.2.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

# Three callers apply the published transform, in this order:
#   resize     images.ImageFiles and ImageArray, after decoding, in the process that reads the image
#   augment    loader.Batches, in the same process, for training only
#   normalize  loader.Loader, on the device, a batch at a time

SCALE = (0.08, 1.0)
LOG_RATIO = (math.log(3 / 4), math.log(4 / 3))
TRIES = 10
MEAN, STD = 0.5, 0.225


def resize(image: Tensor, size: int) -> Tensor:
    """Resize uint8 [3, H, W] to [3, size, size]; an image of that size is returned as it is."""
    return scale(image, size, size)


def scale(image: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with antialias, in whole numbers as PIL does it: uint8 [3, height, width].

    Not torchvision's `resize`, which computes in float where a processor has no AVX2, with other
    pixels, and takes half as long again for an image of CIFAR.
    """
    if image.shape[1:] == (height, width):
        return image
    # One image has no unique memory format; these strides say that it is channels_last.
    batch = image.permute(1, 2, 0)[None].permute(0, 3, 1, 2)
    return interpolate(batch, size=(height, width), mode="bilinear", antialias=True)[0]


def augment(image: Tensor, *, seed: int, epoch: int, index: int) -> Tensor:
    """Random resized crop and horizontal flip of uint8 [3, s, s], determined by the three numbers.

    seed: of the run; index: of the image in its data set.
    """
    height, width = image.shape[1:]
    generator = generator_for(seed, epoch, index)
    # All draws in one call: each call costs as much as the crop.
    uniforms = torch.rand(2 * TRIES + 3, generator=generator, dtype=torch.float64).tolist()
    top, left, crop_height, crop_width = crop_box(height, width, uniforms[1:])
    crop = image[:, top : top + crop_height, left : left + crop_width]
    image = scale(crop, height, width)
    return image.flip(-1) if uniforms[0] < 0.5 else image


def crop_box(height: int, width: int, uniforms: list[float]) -> tuple[int, int, int, int]:
    """(top, left, height, width) with the distribution of torchvision's RandomResizedCrop.

    uniforms: 2 * TRIES + 2 numbers in [0, 1). Ten boxes have an area uniform in 0.08 ... 1 of the
    image and a ratio of width to height log-uniform in 3/4 ... 4/3; the first that fits is placed
    uniformly. If none fits, it is the largest central box with a ratio in that range.
    """
    for area_draw, ratio_draw in zip(uniforms[0:-2:2], uniforms[1:-2:2], strict=True):
        area = height * width * (SCALE[0] + area_draw * (SCALE[1] - SCALE[0]))
        ratio = math.exp(LOG_RATIO[0] + ratio_draw * (LOG_RATIO[1] - LOG_RATIO[0]))
        crop_width, crop_height = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            top = int(uniforms[-2] * (height - crop_height + 1))
            left = int(uniforms[-1] * (width - crop_width + 1))
            return top, left, crop_height, crop_width
    crop_height = min(height, round(width / (3 / 4)))
    crop_width = min(width, round(height * (4 / 3)))
    return (height - crop_height) // 2, (width - crop_width) // 2, crop_height, crop_width


def generator_for(*key: int) -> torch.Generator:
    """A generator determined by the numbers; the global one is not touched.

    Unlike that of strings, Python's hash of integers is the same in every process.
    """
    return torch.Generator().manual_seed(hash(key) % 2**63)


def normalize(images: Tensor) -> Tensor:
    """uint8 [N, 3, H, W] in channels_last, on any device -> float32 (x / 255 - 0.5) / 0.225."""
    if images.device.type == "cpu":
        # numpy asks Linux for huge pages. In small ones the first touch of a new batch of
        # 224 x 224 takes thrice the time of the arithmetic.
        shape = images.permute(0, 2, 3, 1).shape
        values = torch.from_numpy(np.empty(shape, np.float32)).permute(0, 3, 1, 2).copy_(images)
    else:
        values = images.float()
    return values.div_(255).sub_(MEAN).div_(STD)
