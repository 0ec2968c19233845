"""Least squares of ln T on standardised predictors, as in the paper's equations (numpy only).

    log T = -0.26 G + 0.32 D - 0.61 log N + 2.86

Every predictor has mean 0 and standard deviation 1 over the rows (divisor: the number of rows), so
the intercept is the mean of ln T. `log` is the natural logarithm.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

LOG = "log_"


class Fit(NamedTuple):
    """Coefficients and standard errors of the predictors, intercept, R2, degrees of freedom.

    R2 is NaN where ln T is constant.
    """

    coefficients: np.ndarray
    errors: np.ndarray
    intercept: float
    r_squared: float
    degrees: int


def standardise(values: np.ndarray) -> np.ndarray:
    """(x - mean) / standard deviation; of any scale, but not constant."""
    # The squares of very large or small numbers would leave the range of float64.
    values = values / np.abs(values).max()
    return (values - values.mean()) / values.std()


def design(predictors: Mapping[str, np.ndarray]) -> np.ndarray:
    """A column of ones and the standardised predictors: rows x (1 + predictors)."""
    columns = [standardise(values) for values in predictors.values()]
    return np.column_stack([np.ones_like(columns[0]), *columns])


def fit(log_t: np.ndarray, x: np.ndarray) -> Fit:
    """Ordinary least squares of ln T on `x`, whose first column is ones; more rows than columns."""
    inverse = np.linalg.inv(x.T @ x)
    beta = inverse @ x.T @ log_t
    residuals = log_t - x @ beta
    degrees = len(log_t) - x.shape[1]
    squares = residuals @ residuals
    errors = np.sqrt(squares / degrees * np.diag(inverse))
    total = np.sum((log_t - log_t.mean()) ** 2)
    r_squared = 1 - squares / total if total else math.nan
    return Fit(beta[1:], errors[1:], float(beta[0]), float(r_squared), degrees)


def equation(names: Sequence[str], coefficients: Sequence[float], intercept: float) -> str:
    """The paper's form: log T = -0.26 G + 0.32 D - 0.61 log N + 2.86."""
    labels = [
        f" log {name.removeprefix(LOG)}" if name.startswith(LOG) else f" {name}" for name in names
    ]
    text = ""
    for value, label in zip([*coefficients, intercept], [*labels, ""], strict=True):
        shown = f"{abs(value):.2f}{label}"
        sign = "-" if round(value, 2) < 0 else "+"
        text += f" {sign} {shown}" if text else f"{sign}{shown}".removeprefix("+")
    return f"log T = {text}"
