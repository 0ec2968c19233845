"""Draws small labelled image data sets, so that tests need no data: class folders in train and val.

Two tasks: "gratings" (orientation and width of stripes) to pre-train on, "shapes" (disc, square,
triangle, ...) to fine-tune on. Colour tells part of the class, noise and position nothing, so that
a small network learns each well above chance within two epochs.

    python tests/drawn_images.py DIR        # writes DIR/task_a (gratings) and DIR/task_b (shapes)
"""

import colorsys
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SHAPES = ("bar", "cross", "diamond", "disc", "frame", "ring", "square", "triangle")


def draw(
    folder: str | Path,
    *,
    task: str = "gratings",
    classes: int = 8,
    train_per_class: int = 100,
    val_per_class: int = 25,
    size: int = 32,
    seed: int = 0,
) -> Path:
    """Write folder/{train,val}/CLASS/NNN.{png,jpg} and return `folder`.

    task: "gratings", or "shapes" of at most eight classes. The same arguments give the same images.
    """
    folder = Path(folder)
    for split, count in (("train", train_per_class), ("val", val_per_class)):
        for label in range(classes):
            name = SHAPES[label] if task == "shapes" else f"grating_{label:02d}"
            (folder / split / name).mkdir(parents=True, exist_ok=True)
            for number in range(count):
                rng = np.random.default_rng([seed, split == "val", label, number])
                image = Image.fromarray(picture(task, label, classes=classes, size=size, rng=rng))
                ending = "png" if number % 2 else "jpg"
                image.save(folder / split / name / f"{number:03d}.{ending}", quality=95)
    return folder


def picture(
    task: str, label: int, *, classes: int, size: int, rng: np.random.Generator
) -> np.ndarray:
    """One image, uint8 [size, size, 3]."""
    mask = (grating if task == "gratings" else shape)(label, classes=classes, size=size, rng=rng)
    hue = (label / classes + rng.normal(0, 0.12)) % 1
    front = 255 * np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.4, 0.9), rng.uniform(0.6, 1)))
    back = np.full(3, rng.uniform(0, 120))
    pixels = back + mask[..., None] * (front - back) + rng.normal(0, 16, (size, size, 3))
    return pixels.clip(0, 255).astype(np.uint8)


def grating(label: int, *, classes: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Stripes, [size, size] in 0 ... 1: the orientation (upright to lying) tells the class."""
    # Both mirror images, since training flips at random.
    angle = np.pi / 2 * label / (classes - 1) * rng.choice([-1, 1])
    y, x = np.mgrid[:size, :size] / size
    phase = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    return 0.5 + 0.5 * np.sin(2 * np.pi * rng.uniform(3, 6) * along + phase)


def shape(label: int, *, classes: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """A filled outline somewhere in the image, [size, size] of 0 and 1: SHAPES[label]."""
    y, x = np.mgrid[:size, :size] / size
    x, y = x - rng.uniform(0.4, 0.6), y - rng.uniform(0.4, 0.6)
    r = rng.uniform(0.25, 0.4)
    square = np.maximum(abs(x), abs(y))
    round_ = np.hypot(x, y)
    inside = {
        "bar": (abs(x) < r) & (abs(y) < r / 3),
        "cross": (square < r) & ((abs(x) < r / 3) | (abs(y) < r / 3)),
        "diamond": abs(x) + abs(y) < r,
        "disc": round_ < r,
        "frame": (square < r) & (square > 0.65 * r),
        "ring": (round_ < r) & (round_ > 0.65 * r),
        "square": square < r,
        "triangle": (abs(x) < (y + r) / 2) & (y < r),
    }
    return inside[SHAPES[label]].astype(float)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIR")
    for part, chosen in (("task_a", "gratings"), ("task_b", "shapes")):
        print(draw(Path(sys.argv[1]) / part, task=chosen))
