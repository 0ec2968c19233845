"""Check the published numbers against each other, and fit the published table again.

    python -m findings published

Needs numpy only. The table is findings/published.csv; figures/published_cifar10.py draws the curve.
"""

import statistics
from pathlib import Path

from console import ArgumentParser, say

from .depth import depth_correlation
from .least_squares import Fit, design, equation, fit
from .table import Row, Table, read_column, read_table

# Layer-wise T of ResNet-50 on CIFAR-10, as printed in the README of the original repository: stem,
# sixteen blocks, classifier.
PUBLISHED = (
    *(3.44, 7.76, 8.59, 7.3, 5.42, 9.2, 6.1, 5.52, 4.23),
    *(7.65, 8.3, 8.32, 8.86, 8.88, 5.96, 13.0, 13.81, 1.0),
)
# Their mean as published. That of the printed values is 7.78: they are rounded.
PUBLISHED_MEAN = 7.79
TABLE = Path(__file__).resolve().with_suffix(".csv")
PREDICTORS = ("G", "D", "log_N")
# Network -> coefficients of standardised G, D and log N, and intercept, as published with the paper
# (arXiv 2212.00399).
EQUATIONS = {
    "ResNet-50": (-0.26, 0.32, -0.61, 2.86),
    "ResNet-34": (-0.15, 0.25, -0.64, 2.31),
    "DenseNet-121": (-0.14, 0.28, -0.71, 2.76),
    "ViT-small": (-0.01, 0.08, -0.85, 2.76),
}
# Degrees of freedom of the fits below -> quantile 0.975 of Student's t, from a printed table.
T_975 = {5: 2.571, 8: 2.306, 10: 2.228}
STATEMENTS = """\
We could not reproduce the published equations from the published table. The intercept of ResNet-50,
2.86, is near the mean of ln T (2.84), as standardised predictors and the natural logarithm have it.
The conjecture was chosen after seeing the data: only with it D x K is about the same in all rows (6
to 10; POCUS 3.6).
In every reading the intervals of G and D contain 0: only ln N is determined.
ln N is confounded with the number of steps S: at equal epochs S is proportional to N, so the slope
on ln N is the sum b + c of ln T = a + b ln N + c ln S.
The published D is nearly 8 / K: "diversity" and the number of classes cannot be told apart."""


def is_domain_net(row: Row) -> bool:
    """Whether the row is one of the three whose columns look exchanged."""
    return row.name.startswith("DomainNet")


def readings(table: Table) -> dict[str, Table]:
    """Name of a reading -> the published table so read."""
    exchanged, others = [], []
    for row in table.rows:
        if not is_domain_net(row):
            exchanged.append(row)
            others.append(row)
            continue
        g, d = row.cells["intraclass_variance"], row.cells["domain_gap"]
        # The printed 467.7 would be a domain gap of 0.4677.
        cells = {"domain_gap": str(float(g) / 1000), "intraclass_variance": d}
        exchanged.append(row._replace(cells=row.cells | cells))
    return {
        "as printed": table,
        "conjecture: DomainNet's columns exchanged, G / 1000": table._replace(rows=exchanged),
        "without DomainNet": table._replace(rows=others),
    }


def fit_table(table: Table, names: tuple[str, ...] = PREDICTORS) -> Fit:
    """Least squares of ln T on these columns, standardised over the rows of the table."""
    columns = {name: read_column(table, name) for name in names}
    return fit(read_column(table, "log_T"), design(columns))


def curve_lines() -> list[str]:
    """What the 18 values of CIFAR-10 say."""
    blocks = PUBLISHED[:-1]
    return [
        "Layer-wise T of CIFAR-10, ResNet-50 (README of the original repository)",
        f"  {', '.join(map(str, PUBLISHED))}",
        f"  mean of the {len(blocks)} values without the classifier: "
        f"{statistics.fmean(blocks):.4f} (published {PUBLISHED_MEAN}; the values are rounded)",
        f"  rank correlation with depth (Spearman): {depth_correlation(blocks):.2f}",
    ]


def table_lines(table: Table) -> list[str]:
    """The rows beside the product of D and the number of classes."""
    lines = [
        "Table of ResNet-50 (README of the original repository, section 3)",
        f"  {'data set':13}{'G':>8}{'D':>9}{'N':>8}{'T':>8}{'K':>5}{'D x K':>11}",
    ]
    columns = [read_column(table, name) for name in "GDNTK"]
    for row, g, d, n, t, k in zip(table.rows, *columns, strict=True):
        lines.append(f"  {row.name:13}{g:8g}{d:9g}{n:8.0f}{t:8.2f}{k:5.0f}{d * k:11.1f}")
    exchanged = readings(table)["conjecture: DomainNet's columns exchanged, G / 1000"]
    products = read_column(exchanged, "D") * read_column(exchanged, "K")
    moved = [x for row, x in zip(table.rows, products, strict=True) if is_domain_net(row)]
    return [
        *lines,
        f"  D x K of DomainNet with its columns exchanged: {', '.join(f'{x:.1f}' for x in moved)}",
    ]


def interval(estimate: float, error: float, degrees: int) -> str:
    """An estimate, its standard error and its 95 % interval."""
    half = T_975[degrees] * error
    return f"{estimate:.3f} +- {error:.3f}, 95 % {estimate - half:.2f} to {estimate + half:.2f}"


def fit_lines(title: str, table: Table, names: tuple[str, ...] = PREDICTORS) -> list[str]:
    """One fit: its equation, and a line per coefficient."""
    found = fit_table(table, names)
    terms = zip(names, found.coefficients, found.errors, strict=True)
    return [
        f"  {title}, {len(table.rows)} rows, {found.degrees} degrees of freedom",
        f"    {equation(names, found.coefficients, found.intercept)}   R2 {found.r_squared:.2f}",
        *(f"    {name:7}{interval(b, error, found.degrees)}" for name, b, error in terms),
    ]


def slope_line(table: Table) -> str:
    """Slope of ln T on ln N as it stands, not standardised."""
    found, spread = fit_table(table, ("log_N",)), read_column(table, "log_N").std()
    slope, error = found.coefficients[0] / spread, found.errors[0] / spread
    return f"    slope of ln T on ln N, not standardised: {interval(slope, error, found.degrees)}"


def main(argv: list[str]) -> None:
    ArgumentParser(__doc__, prog="python -m findings published").parse_args(argv)
    table = read_table(TABLE)

    lines = [*curve_lines(), "", *table_lines(table), ""]
    lines.append("Published equations (arXiv 2212.00399), standardised predictors, natural log")
    for network, (*coefficients, intercept) in EQUATIONS.items():
        lines.append(f"  {network:13}{equation(PREDICTORS, coefficients, intercept)}")
    lines += ["", "Least squares from the table of ResNet-50 (estimate +- standard error)"]
    for name, read in readings(table).items():
        lines += fit_lines(name, read)
    lines += fit_lines("ln N alone", table, ("log_N",))
    lines += [slope_line(table), "", *STATEMENTS.splitlines()]
    for line in lines:
        say(line)
