"""Draw the published layer-wise transferability of ResNet-50 on CIFAR-10.

    python figures/published_cifar10.py

writes published_cifar10.png beside this file.
"""

import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from console import ArgumentParser, run, say
from findings.published import PUBLISHED, PUBLISHED_MEAN
from measurement.plot import Curve, draw_curve, make_figure, save_figure

FIGURE = Path(__file__).resolve().with_suffix(".png")


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("--plot", type=Path, default=FIGURE, help="file for the figure")
    path = parser.parse_args(argv).plot
    figure, (axes,) = make_figure(1)
    draw_curve(axes, Curve(PUBLISHED))
    axes.set_title(f"CIFAR-10, ResNet-50: published mean {PUBLISHED_MEAN}")
    save_figure(figure, path)
    say(
        f"mean of the {len(PUBLISHED) - 1} printed values without the classifier: "
        f"{statistics.fmean(PUBLISHED[:-1]):.4f}"
    )
    say(path)


if __name__ == "__main__":
    sys.exit(run(main))
