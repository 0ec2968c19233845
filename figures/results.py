"""The results of `make experiment`: the table and the figure of ckpt/README.md.

    python figures/results.py [DIR]

reads MEASUREMENTS (written by step 3) and the X.json of every run in DIR (default: those of the
shipped checkpoints), prints the table, T, T0 (the same from another random start), T / T0 and the
ratio Q per layer, and writes results.png beside this file. Intervals are 95 % t intervals over
seeds, which statsmodels computes (requirements-findings.txt).
"""

import statistics
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from console import ArgumentParser, InputError, run, say
from findings import extra_packages
from findings.published import PUBLISHED, PUBLISHED_MEAN
from measurement.checks import budget_differences
from measurement.plot import Curve, draw_curve, label_decades, make_figure, save_figure
from measurement.results import comparable

LOGS = Path(__file__).resolve().parent.parent / "ckpt" / "shipped" / "logs"
FIGURE = Path(__file__).resolve().with_suffix(".png")
# Start and images of a row -> its runs, named as in the Makefile.
ROWS = {
    "theta_A, 500": [f"cifar10_500_seed{seed}_model" for seed in range(5)],
    "theta_A, 5,000": [f"cifar10_5000_seed{seed}_model" for seed in range(3)],
    "theta_A, 5,000, full batches": [f"cifar10_5000_drop_last_seed{s}_model" for s in range(3)],
    "theta_A, 50,000": ["cifar10_model"],
    "theta_r, 50,000": ["cifar10_scratch_model"],
    "another theta_r, 5,000": ["cifar10_5000_null_model"],
    "another theta_r, 5,000, full batches": ["cifar10_5000_drop_last_null_model"],
}
# Written by step 3.
MEASUREMENTS = ("results.json", "drop_last.json", "null.json", "drop_last_null.json")
# Did not start from theta_A: no T, but the distance for Q.
SCRATCH = "theta_r, 50,000"
NULL = ROWS["another theta_r, 5,000"][0]
ADVICE = "run make experiment first"


class Run(NamedTuple):
    """One checkpoint: the record of its training, and the result of step 3."""

    record: dict[str, Any]
    measured: dict[str, Any]

    @property
    def layers(self) -> list[dict[str, Any]]:
        """All but the classifier."""
        return [layer for layer in self.measured["layers"] if layer["in_mean"]]


def read_runs(folder: Path) -> dict[str, Run]:
    """Name of the checkpoint -> run; InputError where a file is missing or is no such JSON."""
    with extra_packages():
        from findings.reader import read_json
    runs = {}
    for name in MEASUREMENTS:
        try:
            for measured in read_json(folder / name, advice=ADVICE)["results"]:
                stem = Path(measured["b"]).stem
                record = read_json(folder / f"{stem}.json", advice=ADVICE)
                runs[stem] = Run(record, measured)
        except (KeyError, TypeError) as error:
            raise InputError(f"{folder / name} was not written by step 3 (--json)") from error
    missing = [stem for stems in ROWS.values() for stem in stems if stem not in runs]
    if missing:
        raise InputError(f"{folder} lacks the measurement of {missing[0]}; run make experiment")
    return runs


def interval(values: list[float]) -> str:
    """Mean, and half the width of its 95 % t interval where there are several values."""
    with extra_packages():
        from findings.regression import mean_interval
    mean, low, high = mean_interval(values)
    return f"{mean:.2f}" + (f" +/- {(high - low) / 2:.2f}" if len(values) > 1 else "")


def table(runs: dict[str, Run]) -> list[str]:
    """Lines of the table in Markdown."""
    lines = [
        "| start, images | steps | kept epoch | n | accuracy, % | T | geometric mean |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, stems in ROWS.items():
        for kept, ending in (("best", ""), ("last", "_last")):
            seeds = [runs[stem + ending] for stem in stems]
            epochs = sorted({seed.record["kept_epoch"] for seed in seeds})
            shown = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]} to {epochs[-1]}"
            cells = [
                label,
                f"{seeds[0].record['steps']:,}",
                f"{kept} ({shown} of {seeds[0].record['epochs']})",
                str(len(seeds)),
                interval([seed.record["val_acc"] for seed in seeds]),
            ]
            for key in ("transferability", "geometric_mean"):
                values = [seed.measured[key] for seed in seeds]
                cells.append("-" if label == SCRATCH else interval(values))
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def mean_by_layer(seeds: list[Run], key: str) -> list[float]:
    """Mean over runs of one of a layer's numbers."""
    return [
        statistics.fmean(layer[key] for layer in layers)
        for layers in zip(*(seed.layers for seed in seeds), strict=True)
    ]


def print_profiles(runs: dict[str, Run]) -> None:
    """Print T, T0, T / T0 and Q of every layer but the classifier; ratios by geometric mean.

    Raises InputError where T and T0 are of unlike budgets.
    """
    real = [runs[f"{stem}_last"] for stem in ROWS["theta_A, 5,000"]]
    null = runs[f"{NULL}_last"]
    differing = budget_differences([comparable(run.record) for run in (*real, null)])
    if differing:
        raise InputError(f"T and T0 differ in {', '.join(differing)}; T / T0 is of one budget only")
    t, t0 = (mean_by_layer(seeds, "transferability") for seeds in (real, [null]))
    far = mean_by_layer([runs["cifar10_scratch_model_last"]], "distance_r_b")
    near = mean_by_layer([runs["cifar10_model_last"]], "distance_a_b")
    for name, values in (("T, 5,000 images, last epoch", t), ("T0, from another theta_r", t0)):
        say(f"{name}: {rounded(values)}, mean {statistics.fmean(values):.2f}")
    for name, above, below in (("T / T0", t, t0), ("Q, 50,000 images, last epoch", far, near)):
        values = [x / y for x, y in zip(above, below, strict=True)]
        say(f"{name}: {rounded(values)}, geometric mean {statistics.geometric_mean(values):.2f}")


def rounded(values: list[float]) -> list[float]:
    """The values with two decimals."""
    return [round(x, 2) for x in values]


def draw(runs: dict[str, Run], path: Path) -> None:
    """Draw the layer-wise curves of both shipped files beside the published one."""
    shipped = {
        "50,000 images, best epoch": runs["cifar10_model"],
        "500 images, last epoch": runs["cifar10_500_seed0_model_last"],
    }
    curves = {
        f"{title} (mean {each.measured['transferability']:.2f})": [
            layer["transferability"] for layer in each.measured["layers"]
        ]
        for title, each in shipped.items()
    }
    curves[f"published: ResNet-50, ImageNet (mean {PUBLISHED_MEAN})"] = list(PUBLISHED)
    figure, panels = make_figure(len(curves))
    largest = max(max(values) for values in curves.values())
    for axes, (title, values) in zip(panels, curves.items(), strict=True):
        draw_curve(axes, Curve(values, has_classifier=True))
        # One scale for all panels.
        axes.set(title=title, yscale="log", ylim=(0.8, 1.2 * largest))
        label_decades(axes.yaxis)
    save_figure(figure, path)


def main(argv: list[str] | None = None) -> None:
    parser = ArgumentParser(__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=LOGS, help="folder of the logs")
    parser.add_argument("--plot", type=Path, default=FIGURE, help="file for the figure")
    args = parser.parse_args(argv)
    runs = read_runs(args.folder)
    for line in table(runs):
        say(line)
    print_profiles(runs)
    draw(runs, args.plot)
    say(args.plot.resolve())


if __name__ == "__main__":
    sys.exit(run(main))
