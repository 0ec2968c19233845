"""The published transforms: PIL's pixels, torchvision's distribution, no shared random state."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision import transforms as published

from datasets.decode import decode
from datasets.transforms import TRIES, augment, crop_box, generator_for, normalize, resize

ROOT = Path(__file__).parents[1]
DRAWS = 2 * TRIES + 3
uniforms = st.lists(
    st.floats(0, 1, exclude_max=True), min_size=2 * TRIES + 2, max_size=2 * TRIES + 2
)


def photograph(height, width, seed=0):
    """Smooth and noisy parts, as PIL image."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = 120 + 80 * np.sin(x / 9)[..., None] * np.cos(y / 7)[..., None]
    noise = rng.normal(0, 25, (height, width, 3))
    return Image.fromarray((smooth + noise).clip(0, 255).astype(np.uint8))


def jpeg(image):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def difference(image, expected):
    """Mean absolute difference in levels of uint8 [3, H, W] and a PIL image."""
    pixels = torch.from_numpy(np.array(expected)).permute(2, 0, 1)
    assert image.dtype == torch.uint8
    assert image.shape == pixels.shape
    return (image.float() - pixels.float()).abs().mean().item()


def pil_chain(data, size, seed=None, index=0):
    """The original's transforms up to the tensor; with a seed, those of training."""
    image = Image.open(io.BytesIO(data)).convert("RGB").resize((size, size), Image.BILINEAR)
    if seed is None:
        return image
    draws = torch.rand(DRAWS, generator=generator_for(seed, 0, index), dtype=torch.float64).tolist()
    top, left, height, width = crop_box(size, size, draws[1:])
    image = image.crop((left, top, left + width, top + height)).resize((size, size), Image.BILINEAR)
    return image.transpose(Image.FLIP_LEFT_RIGHT) if draws[0] < 0.5 else image


@pytest.mark.parametrize("size", [32, 224])
@pytest.mark.parametrize("shape", [(333, 500), (256, 256), (180, 240), (247, 253), (20, 60)])
def test_decoded_and_resized_pixels_are_those_of_pil(shape, size):
    data = jpeg(photograph(*shape))
    assert difference(resize(decode(data), size), pil_chain(data, size)) <= 0.1


def test_tall_images_differ_from_pil_by_rounding_only():
    # Pillow 12 and later do the vertical pass first here and round in another place.
    data = jpeg(photograph(500, 333))
    ours = resize(decode(data), 224)
    assert difference(ours, pil_chain(data, 224)) <= 0.3
    pixels = torch.from_numpy(np.array(pil_chain(data, 224))).permute(2, 0, 1)
    assert (ours.int() - pixels.int()).abs().max() <= 1


def test_training_pixels_are_those_of_pil():
    data = jpeg(photograph(120, 160))
    for size in (32, 64):
        image = resize(decode(data), size)
        for index in range(30):
            ours = augment(image, seed=5, epoch=0, index=index)
            assert difference(ours, pil_chain(data, size, seed=5, index=index)) <= 0.1


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_pixels_are_the_same_on_every_processor(capability):
    code = (
        "import torch\n"
        "from datasets.transforms import augment, resize\n"
        "image = torch.arange(3 * 41 * 53).mul(97).remainder(251).byte().view(3, 41, 53)\n"
        "print(augment(resize(image, 32), seed=0, epoch=0, index=3).flatten().tolist())\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "ATEN_CPU_CAPABILITY": capability},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    image = torch.arange(3 * 41 * 53).mul(97).remainder(251).byte().view(3, 41, 53)
    ours = augment(resize(image, 32), seed=0, epoch=0, index=3)
    assert json.loads(ran.stdout) == ours.flatten().tolist()


def test_nothing_is_done_to_an_image_of_the_right_size():
    image = decode(jpeg(photograph(32, 32)))
    assert resize(image, 32) is image


def test_normalisation_is_the_published_one_to_the_bit_and_keeps_the_format():
    image = photograph(32, 32)
    chain = published.Compose([published.ToTensor(), published.Normalize([0.5] * 3, [0.225] * 3)])
    batch = torch.from_numpy(np.array(image))[None].expand(2, -1, -1, -1).contiguous()
    ours = normalize(batch.permute(0, 3, 1, 2))
    assert ours.dtype == torch.float32
    assert ours.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(ours[1], chain(image))


@pytest.mark.parametrize(
    "shape",
    [
        (32, 32),
        (40, 300),
        *(pytest.param(s, marks=pytest.mark.slow) for s in ((224, 224), (100, 70))),
    ],
)
def test_crops_have_the_distribution_of_torchvision(shape):
    count = 20000
    image = torch.empty(3, *shape, dtype=torch.uint8)
    torch.manual_seed(0)
    theirs = np.array(
        [
            published.RandomResizedCrop.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3])
            for _ in range(count)
        ]
    )
    ours = np.array(
        [
            crop_box(*shape, torch.rand(DRAWS, generator=generator_for(7, 3, i)).tolist()[1:])
            for i in range(count)
        ]
    )
    # Kolmogorov-Smirnov at a level of 0.001, on top, left, height, width, area, ratio.
    ours, theirs = (
        np.c_[box, box[:, 2] * box[:, 3], box[:, 3] / box[:, 2]] for box in (ours, theirs)
    )
    for column in range(ours.shape[1]):
        values = np.unique(np.r_[ours[:, column], theirs[:, column]])
        shares = [
            np.searchsorted(np.sort(sample[:, column]), values, side="right") / count
            for sample in (ours, theirs)
        ]
        assert abs(shares[0] - shares[1]).max() < 1.95 * (2 / count) ** 0.5


@pytest.mark.parametrize(
    ("shape", "box"),
    [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10)), ((20, 21), (0, 0, 20, 21))],
)
def test_central_box_where_no_draw_fits(shape, box):
    # The whole area at the extreme ratios fits in none of these.
    assert crop_box(*shape, [0.999999, 0.999999] * TRIES + [0.5, 0.5]) == box


@given(st.integers(1, 300), st.integers(1, 300), uniforms)
def test_boxes_lie_inside_the_image(height, width, draws):
    top, left, crop_height, crop_width = crop_box(height, width, draws)
    assert 0 <= top < top + crop_height <= height
    assert 0 <= left < left + crop_width <= width


def test_half_of_the_images_are_flipped():
    ramp = torch.arange(32, dtype=torch.uint8).expand(3, 32, 32)
    images = (augment(ramp, seed=0, epoch=0, index=index) for index in range(2000))
    flipped = sum((image[0, 0, 0] > image[0, 0, -1]).item() for image in images)
    assert abs(flipped - 1000) < 3.3 * (2000 / 4) ** 0.5


def test_augmentation_depends_on_seed_epoch_and_index_alone():
    image = decode(jpeg(photograph(32, 32)))
    key = {"seed": 3, "epoch": 4, "index": 5}
    torch.manual_seed(0)
    first = augment(image, **key)
    torch.manual_seed(1)
    assert torch.equal(first, augment(image, **key))
    for name in key:
        assert not torch.equal(first, augment(image, **{**key, name: 9}))
