"""T along the way of fine-tuning, from the X.csv and X.json that `finetune.py -r` has written.

Along a run whose learning rate falls, T of an earlier epoch is not that of a shorter run, which
would have been annealed by then: such a curve is labelled "not annealed", and only its end, where
the run is finished, compares with the ends of other runs. Curves at a constant rate compare.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from console import InputError
from measurement.plot import make_figure

from .panels import STYLES, T_LABEL, label_decades, line_style
from .profiles import read_json
from .table import read_column, read_table

ADVICE = "it is written by finetune.py beside X.csv"


class Way(NamedTuple):
    """Optimiser steps and T after every epoch in which T was measured, and how the rate ran."""

    name: str
    steps: np.ndarray
    values: np.ndarray
    constant: bool
    finished: bool

    @property
    def label(self) -> str:
        return self.name + ("" if self.constant else " (not annealed)")


def read_way(path: Path) -> Way:
    """The curve of one X.csv. Raises InputError where it holds no T, or X.json is not beside it."""
    table = read_table(path)
    if "transferability" not in table.columns:
        raise InputError(f"{path} has no column transferability; finetune.py -r FILE measures it")
    # In an epoch in which nothing has moved yet, there is no T.
    table = table._replace(rows=[row for row in table.rows if row.cells["transferability"]])
    if not table.rows:
        raise InputError(f"{path} holds no value of T")
    record = read_json(path.with_suffix(".json"), advice=ADVICE)
    return Way(
        path.stem,
        read_column(table, "step"),
        read_column(table, "transferability"),
        constant=record.get("args", {}).get("scheduler") == "constant",
        finished=record.get("finished", False),
    )


def draw_ways(ways: Sequence[Way]) -> Figure:
    """T against steps on logarithmic axes; a filled star is an annealed end."""
    if len(ways) > len(STYLES):
        raise InputError(f"{len(ways)} curves cannot be told apart; give at most {len(STYLES)}")
    figure, (axes,) = make_figure(1)
    for i, way in enumerate(ways):
        style = line_style(i)
        axes.plot(way.steps, way.values, label=way.label, **style)
        if way.finished and not way.constant:
            end = style | {"marker": "*", "markersize": 12, "linestyle": "none"}
            axes.plot(way.steps[-1:], way.values[-1:], label=f"{way.name}, annealed", **end)
    axes.set(xscale="log", yscale="log", xlabel="Optimiser steps", ylabel=T_LABEL)
    for axis in (axes.xaxis, axes.yaxis):
        label_decades(axis)
    axes.legend(fontsize=7)
    axes.set_title("T along the way")
    return figure
