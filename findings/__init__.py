"""The paper's findings and what they can bear: published numbers, factors, regression, figures."""

import contextlib
from collections.abc import Iterator

from console import InputError


@contextlib.contextmanager
def extra_packages() -> Iterator[None]:
    """Turn a missing package of requirements-findings.txt into one line that says how to get it."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("pandas", "statsmodels"):
            raise
        raise InputError(f"{error}; run pip install -r requirements-findings.txt") from error
