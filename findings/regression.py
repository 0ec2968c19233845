"""Regress ln T on standardised predictors, by ordinary least squares (statsmodels).

    python -m findings regression results.csv
    python -m findings regression results.csv --with steps,K
    python -m findings regression results.csv --predictors log_N,log_steps

The table has a row per data set and columns by name; those of the paper's equation are T, G, D and
N (or transferability, domain_gap, intraclass_variance and data_amount). log_X is the natural
logarithm of column X. Every predictor is standardised over the rows (mean 0, standard deviation 1).
What is measured after fine-tuning, such as a loss, is no predictor.

Of a study (a table with the column start) only the rows from theta_A count that share batch_size,
lr, weight_decay and theta_A itself with most, and of each data set those with its most frequent
number of classes.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.weightstats import DescrStatsW

from console import ArgumentParser, InputError, say, warn

from .published import LOG, design, equation
from .reader import (
    Table,
    comparable_rows,
    find_column,
    group_rows,
    of_block,
    read_column,
    read_table,
    resolve,
)

DEFAULT = "G,D,log_N"
# Columns that are known only after fine-tuning, and beginnings of such names: they go with T and do
# not explain it.
OUTCOMES = (
    *("train_loss", "val_acc", "probe_loss", "probe_acc", "kept_epoch", "geometric_mean"),
    *("rotation", "t_angle", "left_of_r", "shrinkage", "transferability_substitute"),
    *("agreement", "agreement_01"),
)
OUTCOMES_OF_LAYERS = ("T ", "T_angle ", "rotation ", "distance_")
# Smallest share of the largest singular value that is more than rounding.
RANK_TOLERANCE = 1e-8
# Condition number of the standardised predictors from which on a caution is printed; of two, their
# correlation is then 0.98. Belsley, Kuh, Welsch ("Regression Diagnostics", 1980): 5 to 10 is weak
# collinearity, 30 and more is strong.
COLLINEAR = 10
# Number of rows shown of those that pull hardest.
SHOWN = 3


class Regression(NamedTuple):
    """A fit by statsmodels, the slope per unit of each predictor, and the influence of the rows."""

    names: list[str]
    fit: Any
    slopes: np.ndarray
    influence: Any

    @property
    def equation(self) -> str:
        """The fit in the paper's form."""
        return equation(self.names, self.fit.params[1:], self.fit.params[0])


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % t interval: NaN for a single value, which has none."""
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, math.nan, math.nan
    low, high = DescrStatsW(values).tconfint_mean(alpha=0.05)
    return mean, float(low), float(high)


def predictor_names(text: str) -> list[str]:
    """An argparse type: the names of a list with commas between them."""
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise argparse.ArgumentTypeError(f"must be names with commas between, not {text!r}")
    return names


def add_predictor_options(parser: argparse.ArgumentParser) -> None:
    """--predictors and --with."""
    parser.add_argument(
        "--predictors",
        type=predictor_names,
        default=DEFAULT,
        metavar="LIST",
        help="columns that explain ln T; log_X is the natural logarithm of X",
    )
    parser.add_argument(
        "--with",
        dest="more",
        type=predictor_names,
        default=[],
        metavar="LIST",
        help="further columns, beside those",
    )
    parser.add_argument("--block", metavar="NAME", help="rows of this block of a study's table")


def regress(table: Table, names: list[str]) -> Regression:
    """Least squares of ln T on the named columns.

    Raises InputError for wrong cells, too few rows, and predictors that are constant, collinear, or
    decided by one row.
    """
    check_names(table, names)
    least = len(names) + 3
    if len(table.rows) < least:
        raise InputError(
            f"{table.path} has {len(table.rows)} rows; {len(names) + 1} coefficients need at least "
            f"{least}"
        )
    log_t = read_column(table, LOG + "T")
    predictors = {name: read_column(table, name) for name in names}
    for name, values in {LOG + "T": log_t, **predictors}.items():
        if values.min() == values.max():
            raise InputError(f"{table.path}: {name} is the same in every row; it explains nothing")
    x = design(predictors)
    check_rank(table, names, x)

    fit = OLS(log_t, x).fit()
    influence = fit.get_influence()
    alone = int(influence.hat_matrix_diag.argmax())
    if influence.hat_matrix_diag[alone] > 1 - RANK_TOLERANCE:
        raise InputError(
            f"{table.where(table.rows.index[alone])} alone decides a coefficient of "
            f"{', '.join(names)}; leave out the row or a predictor"
        )
    deviations = [values.std() for values in predictors.values()]
    return Regression(names, fit, fit.params[1:] / deviations, influence)


def check_names(table: Table, names: list[str]) -> None:
    """Raise InputError for an unknown column, an outcome as predictor, and a column named twice."""
    explained, _ = resolve(table, "T")
    seen = set()
    for name in names:
        try:
            column = resolve(table, name)
        except InputError as error:
            raise InputError(
                f"{error}; --predictors names others, such as log_N,log_steps"
            ) from error
        if column[0] == explained:
            raise InputError(f"predictor {name}: T is what is explained; leave it out")
        if column[0] in OUTCOMES or column[0].startswith(OUTCOMES_OF_LAYERS):
            raise InputError(
                f"predictor {name} is measured after fine-tuning, as T is: it explains nothing and "
                "changes the meaning of the other coefficients; leave it out"
            )
        if column in seen:
            raise InputError(f"predictor {name} is given twice")
        seen.add(column)


def check_rank(table: Table, names: list[str], x: np.ndarray) -> None:
    """Raise InputError naming a predictor that is a linear combination of those before it."""
    for i, name in enumerate(names, start=1):
        singular = np.linalg.svd(x[:, : i + 1], compute_uv=False)
        if singular[-1] < RANK_TOLERANCE * singular[0]:
            raise InputError(
                f"{table.path}: {name} follows from {', '.join(names[: i - 1])} (collinear); "
                "leave one of them out"
            )


def coefficient_lines(result: Regression) -> list[str]:
    """A line per coefficient; "per unit" is the slope on the column before it is standardised."""
    fit = result.fit
    lines = [
        f"  {'':16}{'coefficient':>12}{'std error':>12}{'95 % interval':>20}{'per unit':>12}",
    ]
    units = ["", *(f"{slope:.4g}" for slope in result.slopes)]
    rows = zip(
        ["intercept", *result.names], fit.params, fit.bse, fit.conf_int(), units, strict=True
    )
    for name, value, error, (low, high), unit in rows:
        span = f"{low:.3f} to {high:.3f}"
        lines.append(f"  {name:16}{value:12.3f}{error:12.3f}{span:>20}{unit:>12}".rstrip())
    return lines


def quality_lines(result: Regression) -> list[str]:
    """How well the fit describes the rows, and how well it is determined by them."""
    fit = result.fit
    error = np.sqrt(np.mean(result.influence.resid_press**2))
    mean_alone = np.std(fit.model.endog) * fit.nobs / (fit.nobs - 1)
    return [
        f"  R2 {fit.rsquared:.3f}, adjusted {fit.rsquared_adj:.3f}",
        f"  leave-one-out error {error:.3f} in ln T (root mean square; of the mean alone "
        f"{mean_alone:.3f})",
        f"  condition number {fit.condition_number:.1f} (1: uncorrelated predictors)",
    ]


def influence_lines(table: Table, result: Regression) -> list[str]:
    """The rows that pull hardest, by Cook's distance."""
    cook, leverage = result.influence.cooks_distance[0], result.influence.hat_matrix_diag
    lines = [f"  rows that pull hardest (mean leverage {leverage.mean():.2f})"]
    for i in np.argsort(-cook, kind="stable")[:SHOWN]:
        line = table.rows.index[i]
        lines.append(
            f"    line {line:<4} {table.name(line):16} Cook's distance {cook[i]:.2f}, "
            f"leverage {leverage[i]:.2f}"
        )
    return lines


def nearly_collinear(result: Regression) -> list[str]:
    """The predictors that hardly vary apart from each other; [] below the condition COLLINEAR.

    They have at least half of the variance of their coefficients from directions along which the
    rows hardly vary.
    """
    # Without the column of ones, which is at right angles to the others.
    _, singular, directions = np.linalg.svd(result.fit.model.exog[:, 1:])
    weak = singular * COLLINEAR <= singular[0]
    if not weak.any():
        return []
    variances = (directions.T / singular) ** 2
    shares = variances[:, weak].sum(1) / variances.sum(1)
    least = min(0.5, shares.max())
    return [name for name, share in zip(result.names, shares, strict=True) if share >= least]


def print_cautions(table: Table, result: Regression) -> None:
    """Say what the numbers cannot tell."""
    names, collinear = result.names, nearly_collinear(result)
    if collinear:
        warn(
            f"{', '.join(collinear)} are nearly collinear: condition number "
            f"{result.fit.condition_number:.3g} (caution from {COLLINEAR}); their coefficients "
            "cannot be told apart by these rows; leave one of them out"
        )
    wanted = [resolve(table, name) for name in names]
    columns = {column for column, _ in wanted}
    if (find_column(table, "N"), True) in wanted and "steps" not in columns:
        say("ln N cannot be told from the number of steps, proportional to it at equal epochs")
    if "start" in table.columns and len(group_rows(table.rows, ("dataset", "folder"))) == 1:
        say("of a study on one data set: python -m findings summary has its slopes cell by cell")
    inputs = np.column_stack([read_column(table, name) for name in names])
    repeated = len(inputs) - len(np.unique(inputs, axis=0))
    if repeated:
        warn(
            f"{repeated} rows repeat the predictors of another (seeds?); the standard errors take "
            "them as independent"
        )


def main(argv: list[str]) -> None:
    parser = ArgumentParser(__doc__, prog="python -m findings regression")
    parser.add_argument("table", type=Path, help="CSV file, as findings/published.csv")
    add_predictor_options(parser)
    args = parser.parse_args(argv)
    table, left_out = comparable_rows(of_block(read_table(args.table), args.block))
    for reason in left_out:
        say(f"{table.path}: {reason}")
    result = regress(table, args.predictors + args.more)

    say(
        f"{table.path}: {len(table.rows)} rows, ln T on standardised predictors, "
        f"{result.fit.df_resid:.0f} degrees of freedom"
    )
    for note in table.notes:
        say(f"note: {note}")
    say(result.equation)
    lines = coefficient_lines(result) + quality_lines(result) + influence_lines(table, result)
    for line in lines:
        say(line)
    print_cautions(table, result)
