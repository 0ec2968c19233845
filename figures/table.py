"""The figures of findings/TABLE.md, from the table of the study.

    python figures/table.py [TABLE] [--out DIR]

writes three figures beside this file (or into DIR): table_images.png, T against the number of
images at equal epochs and at equal steps; table_depth.png, T and T_angle over the blocks of every
data set; table_nulls.png, T and agreement of seeds beside those of the nulls.
"""

import math
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
from console import ArgumentParser, run, say
from findings import extra_packages
from measurement.plot import Curve, draw_curve, label_decades, line_style, make_figure, save_figure

# Label -> block of the runs, and what is chosen in it.
NULLS = (
    ("true labels", "E", {}),
    ("random labels", "N", {"labels": "random"}),
    ("shuffled theta_A", "N", {"start": "shuffled"}),
)


def draw_images(view: Any) -> Any:
    """T against N: equal epochs beside equal steps, on one scale; a point is a data set."""
    figure, panels = make_figure(2)
    images = view.whole().sort_values(kind="stable")
    for axes, block, title in zip(panels, "PW", ("20 epochs", "420 steps"), strict=True):
        t = view.log_t(block).map(math.exp)
        axes.plot(images, t[images.index], **{**line_style(0), "linestyle": "none"})
        for number, (name, value) in enumerate(images.items(), start=1):
            place = {"xytext": (3, 3), "textcoords": "offset points", "fontsize": 7}
            axes.annotate(str(number), (value, t[name]), **place)
        axes.set(title=title, xscale="log", yscale="log", xlabel="Training images N", ylabel="T")
    limits = [bound for axes in panels for bound in axes.get_ylim()]
    for axes in panels:
        axes.set(ylim=(min(limits), max(limits)))
        label_decades(axes.xaxis, axes.yaxis)
    names = [f"{number} {words(name)}" for number, name in enumerate(images.index, start=1)]
    figure.supxlabel(f"{', '.join(names[:8])},\n{', '.join(names[8:])}", fontsize=8)
    return figure


def words(name: str) -> str:
    """The name of a folder as words."""
    return name.replace("_", " ")


def draw_depth(view: Any) -> Any:
    """T and T_angle over the blocks at equal images and steps: a panel per data set, one scale."""
    rows = view.select("E")
    names = list(view.whole().sort_values(kind="stable").index)
    figure, panels = make_figure(len(names), 5)
    for axes, name in zip(panels, names, strict=True):
        of_set = rows[rows["folder"] == name]
        for style, word in enumerate(("T", "T_angle")):
            columns = [column for column in rows if column.startswith(f"{word} ")]
            values = of_set[columns].astype(float).mean()
            curve = Curve(list(values), label=word.replace("_", " "), style=style)
            draw_curve(axes, curve)
        axes.set(
            title=f"{words(name)} (K {of_set['classes'].iloc[0]:.0f})", ylabel="", yscale="log"
        )
        axes.set_ylim(2.5, 200)
        label_decades(axes.yaxis)
    panels[0].legend(fontsize=8)
    return figure


def draw_nulls(view: Any) -> Any:
    """T and agreement of every data set, beside random labels and the shuffled start."""
    figure, panels = make_figure(2)
    names = list(view.log_t("E").sort_values(kind="stable").index)
    for style, (label, block, chosen) in enumerate(NULLS):
        for axes, values in (
            (panels[0], view.log_t(block, **chosen).map(math.exp)),
            (panels[1], view.column("agreement_01", block, **chosen)),
        ):
            values = values.reindex(names)
            points = {**line_style(style), "linestyle": "none"}
            if values.notna().any():
                axes.plot(range(len(names)), values, label=label, **points)
    panels[0].set(title="T", yscale="log")
    label_decades(panels[0].yaxis)
    panels[1].set(title="agreement of seeds 0 and 1")
    panels[1].axhline(0, color="0.7", linewidth=0.8, zorder=0)
    for axes in panels:
        axes.set_xticks(range(len(names)), [words(name) for name in names])
        axes.tick_params(axis="x", labelrotation=90, labelsize=7)
        axes.legend(fontsize=8)
    return figure


FIGURES = {"images": draw_images, "depth": draw_depth, "nulls": draw_nulls}


def main(argv: list[str] | None = None) -> None:
    with extra_packages():
        from findings.reader import read_table
        from findings.table import DEFAULT, read_view
    parser = ArgumentParser(__doc__)
    parser.add_argument("table", nargs="?", type=Path, default=DEFAULT, help="table of the study")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder")
    args = parser.parse_args(argv)
    view = read_view(read_table(args.table))
    for name, draw in FIGURES.items():
        path = args.out / f"table_{name}.png"
        save_figure(draw(view), path)
        say(path.resolve())


if __name__ == "__main__":
    sys.exit(run(main))
