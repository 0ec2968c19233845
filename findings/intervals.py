"""statsmodels, which only some commands need, and the interval over seeds that it computes."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from console import InputError


def import_statsmodels() -> Any:
    """statsmodels' api; InputError where it is not installed."""
    try:
        from statsmodels import api
    except ImportError as error:
        raise InputError(f"{error}; run pip install -r requirements-findings.txt") from error
    return api


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean, and the ends of its 95 % t interval: NaN for a single value, which has none.

    Raises InputError where statsmodels is not installed, unless there is a single value.
    """
    mean = float(np.mean(values))
    if len(values) == 1:
        return mean, float("nan"), float("nan")
    import_statsmodels()
    from statsmodels.stats.weightstats import DescrStatsW

    low, high = DescrStatsW(values).tconfint_mean(alpha=0.05)
    return mean, float(low), float(high)
