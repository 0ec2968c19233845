"""Draw the method: where the parameters go, and the two distances whose ratio is T.

    python figures/method.py

writes method.png beside this file. It is a sketch in a plane of two parameters, without data; D is
drawn as the length of a straight line, though it is the mean absolute difference.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from console import ArgumentParser, run, say
from measurement.plot import save_figure

FIGURE = Path(__file__).resolve().with_suffix(".png")

Point = tuple[float, float]
THETA_R: Point = (0.9, 1.0)
THETA_A: Point = (6.2, 5.0)
# Parameters that solve task B lie on x = 5.0 + 0.5 y + 0.055 y^2, give or take the band's width.
BEND = (5.0, 0.5, 0.055)
BAND = 0.42
# Each arrow has a line style of its own, as the figure may be printed in grey.
PRETRAINING = {"color": "#0b3c6f", "linestyle": "-"}
FINETUNING = {"color": "#b0461a", "linestyle": (0, (5, 2))}
SCRATCH = {"color": "#3a6b2c", "linestyle": (0, (1, 1.4))}


def solution(y: float) -> Point:
    """The point at height y in the middle of the band of task B's solutions."""
    return BEND[0] + BEND[1] * y + BEND[2] * y * y, y


THETA_FB = solution(4.1)
THETA_SB = solution(0.6)


def draw_band(axes: Axes) -> None:
    """The solutions of task B, and their name beside them."""
    y = np.linspace(-0.4, 6.4, 60)
    x = np.array([solution(each)[0] for each in y])
    axes.fill_betweenx(y, x - BAND, x + BAND, color="0.86", linewidth=0)
    axes.plot(x, y, color="0.68", linewidth=1)
    axes.text(9.0, 1.85, "solutions\nof task B", fontsize=13, color="0.3", ha="center", va="center")


def draw_arrow(axes: Axes, start: Point, end: Point, *, bend: float, **style: Any) -> None:
    """An arrow for a training run between two points, bent to the left (to the right: negative)."""
    first, last = np.array(start), np.array(end)
    across = (last - first) @ np.array([[0, 1], [-1, 0]])
    t = np.linspace(0, 1, 200)[:, None]
    middle = (first + last) / 2 + bend * across
    curve = (1 - t) ** 2 * first + 2 * t * (1 - t) * middle + t**2 * last
    # The markers stay free.
    free = np.minimum(np.hypot(*(curve - first).T), np.hypot(*(curve - last).T)) > 0.25
    curve = curve[free]
    axes.plot(*curve[:-6].T, linewidth=2.6, **style)
    # The head by itself: its outline would be dashed like the line.
    head = {"arrowstyle": "-|>,head_width=0.4,head_length=0.8", "color": style["color"]}
    axes.annotate("", curve[-1], curve[-8], arrowprops={**head, "shrinkA": 0, "shrinkB": 0})


def draw_distance(axes: Axes, start: Point, end: Point) -> None:
    """A straight line between two points, with a bar at each end as in a technical drawing."""
    arrow = {"arrowstyle": "|-|,widthA=0.35,widthB=0.35", "linewidth": 1.2, "color": "black"}
    axes.annotate("", end, start, arrowprops={**arrow, "shrinkA": 8, "shrinkB": 8})


def draw_point(axes: Axes, point: Point, name: str, offset: Point, **marker: Any) -> None:
    """A point of the plane and its name."""
    axes.plot(*point, markersize=10, color="black", **marker)
    at = (point[0] + offset[0], point[1] + offset[1])
    axes.text(*at, name, fontsize=18, ha="center", va="center")


def draw() -> Figure:
    figure = Figure(figsize=(7.4, 5.0), layout="constrained")
    axes = figure.add_subplot()
    draw_band(axes)
    draw_distance(axes, THETA_R, THETA_FB)
    draw_distance(axes, THETA_A, THETA_FB)
    draw_arrow(axes, THETA_R, THETA_A, bend=0.3, **PRETRAINING)
    draw_arrow(axes, THETA_A, THETA_FB, bend=0.55, **FINETUNING)
    draw_arrow(axes, THETA_R, THETA_SB, bend=-0.18, **SCRATCH)

    draw_point(axes, THETA_R, r"$\theta_r$", (-0.4, -0.35), marker="s")
    draw_point(axes, THETA_A, r"$\theta_A$", (-0.25, 0.55), marker="o")
    draw_point(axes, THETA_FB, r"$\theta_{FB}$", (0.75, -0.1), marker="D")
    draw_point(axes, THETA_SB, r"$\theta_{SB}$", (0.85, 0.0), marker="^")

    def write(x: float, y: float, words: str, color: str = "black") -> None:
        axes.text(x, y, words, fontsize=14, color=color, ha="center", va="center")

    write(2.2, 4.6, "pre-training\non task A", PRETRAINING["color"])
    write(7.7, 5.95, "fine-tuning on B", FINETUNING["color"])
    write(2.45, -0.05, "training on B from scratch", SCRATCH["color"])
    write(4.9, 2.15, r"$D(\theta_r, \theta_{FB})$")
    write(6.05, 4.25, r"$D(\theta_A, \theta_{FB})$")

    axes.set_title(
        r"$T_{FB}(\theta_A)\ =\ D(\theta_r, \theta_{FB})\ /\ D(\theta_A, \theta_{FB})$",
        fontsize=17,
        pad=10,
    )
    axes.set(xlim=(0, 10), ylim=(-0.4, 6.4), aspect="equal", xticks=[], yticks=[])
    axes.set_xlabel("a parameter of a layer", fontsize=12)
    axes.set_ylabel("another parameter", fontsize=12)
    return figure


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--plot", type=Path, default=FIGURE, help="file for the figure")
    path = parser.parse_args(argv).plot
    save_figure(draw(), path)
    say(path)


if __name__ == "__main__":
    sys.exit(run(main))
