"""The published numbers and what `python -m findings published` makes of them."""

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from console import run
from findings import __main__ as findings
from findings import published
from findings.published import depth_correlation, design, equation, fit, read_published

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def printed():
    """The output of the command, from a process of its own that says what it has imported."""
    code = (
        "import sys; from findings.__main__ import main; main(['published']); "
        "print(*sorted({m.partition('.')[0] for m in sys.modules}), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done


def line_after(text, *starts):
    """The first line that begins with the last start, after those that begin with the others."""
    lines = iter(line.strip() for line in text.splitlines())
    for start in starts:
        line = next(line for line in lines if line.startswith(start))
    return line


def test_needs_numpy_only(printed):
    modules = set(printed.stderr.split())
    assert "numpy" in modules
    assert not modules & {"torch", "pandas", "statsmodels", "scipy", "matplotlib"}
    assert printed.stdout.isascii()
    assert max(map(len, printed.stdout.splitlines())) <= 105


@pytest.mark.parametrize("package", ["pandas", "statsmodels"])
def test_commands_say_how_to_get_a_missing_package(package):
    """Before anything else: the summary of a study comes after hours of runs."""
    code = (
        f"import sys; sys.modules['{package}'] = None; "
        "from console import run; from findings.__main__ import main; "
        "print([run(lambda: main([name])) for name in ('summary', 'regression', 'study')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "[2, 2, 2]\n"
    lines = done.stderr.splitlines()
    assert len(lines) == 3
    assert all(line.endswith("; run pip install -r requirements-findings.txt") for line in lines)


def test_curve_of_cifar10(printed):
    assert "8.86, 8.88, 5.96, 13.0, 13.81, 1.0\n" in printed.stdout
    assert "mean of the 17 values without the classifier: 7.7847 (published 7.79" in printed.stdout
    assert "rank correlation with depth (Spearman): 0.51" in printed.stdout


@pytest.mark.parametrize(
    "values",
    [
        published.PUBLISHED[:-1],
        (3.0, 2.0, 1.0),
        (1, 2, 2, 3),
        (5, 5, 1, 1, 2),
        (math.inf, 3, math.inf, 1),
    ],
)
def test_rank_correlation_is_spearmans(values):
    from scipy.stats import spearmanr

    expected = spearmanr(range(len(values)), values).statistic
    assert depth_correlation(values) == pytest.approx(expected, abs=1e-12)


def test_rank_correlation_of_equal_values_and_of_none_is_none():
    assert np.isnan(depth_correlation([math.inf] * 3))
    assert depth_correlation([1, math.nan, 2]) == pytest.approx(1)


@pytest.mark.parametrize("x", [(1, 2, 2, 3), (5.5, 1, 5.5, 0), (math.inf, 3, -1, 2)])
def test_rank_correlation_of_two_columns_with_ties_is_spearmans(x):
    from scipy.stats import spearmanr

    y = (3, 1, 4, 1)
    assert published.spearman(x, y) == pytest.approx(spearmanr(x, y).statistic, abs=1e-12)


def test_profiles_read_from_the_figure(printed):
    table = read_published()
    profiles = published.read_profiles()
    assert list(profiles) == list(table["dataset"])
    assert {len(curve) for curve in profiles.values()} == {17}
    assert published.PROFILES.read_text().count("READ FROM A PICTURE") == 1
    for line in (
        *("CIFAR-10 10 50000 7.79 7.70 +0.51 +0.42", "CIFAR-100 100 50000 5.59 5.57 +0.10 -0.08"),
        *("Aircraft 100 6667 12.45 15.40 -0.57 -0.84", "Flowers 17 1088 106.30 105.97 -0.30 -0.56"),
        *("POCUS 3 1692 53.58 53.26 +0.81 +0.78", "DomainNet-c 345 33525 8.91 8.83 -0.75 -0.93"),
        "9 of 12 fall with depth (10 without the stem)",
        "rank correlation of their direction with ln K: -0.91 (without the stem -0.94),",
        "seen after looking, over twelve data sets that differ in more than K",
        "CIFAR-10 within 0.18, the means of eleven data sets within 1.2 %",
        "Aircraft: 12.45 in the table, 15.4 in the figure; with 15.5",
        "the mean of ln T is 2.856, the published intercept",
    ):
        assert line in " ".join(printed.stdout.split()), line


def test_direction_of_the_profiles_follows_the_number_of_classes():
    from scipy.stats import spearmanr

    table = read_published()
    curves = np.array(list(published.read_profiles().values()))
    rho = [spearmanr(range(17), curve).statistic for curve in curves]
    blocks = [spearmanr(range(16), curve[1:]).statistic for curve in curves]
    log_k = np.log(table["K"])
    assert (sum(x < 0 for x in rho), sum(x < 0 for x in blocks)) == (9, 10)
    assert spearmanr(rho, log_k).statistic == pytest.approx(-0.91, abs=0.005)
    assert spearmanr(blocks, log_k).statistic == pytest.approx(-0.94, abs=0.005)


def test_table_has_the_twelve_rows(printed):
    table = read_published()
    assert len(table["dataset"]) == 12
    sums = {"N": 326_908, "T": 317.18, "K": 1635}
    assert {key: table[key].sum() for key in sums} == pytest.approx(sums)
    assert re.search(r"^  CIFAR-10 .* 6\.7$", printed.stdout, re.MULTILINE)
    assert re.search(r"^  POCUS .* 3\.6$", printed.stdout, re.MULTILINE)
    assert re.search(r"^  DomainNet-r .* 161356\.5$", printed.stdout, re.MULTILINE)
    assert "DomainNet with its columns exchanged: 9.3, 9.3, 9.3" in printed.stdout


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("ResNet-50", "log T = -0.26 G + 0.32 D - 0.61 log N + 2.86"),
        ("ResNet-34", "log T = -0.15 G + 0.25 D - 0.64 log N + 2.31"),
        ("DenseNet-121", "log T = -0.14 G + 0.28 D - 0.71 log N + 2.76"),
        ("ViT-small", "log T = -0.01 G + 0.08 D - 0.85 log N + 2.76"),
    ],
)
def test_published_equations(printed, network, expected):
    assert line_after(printed.stdout, "Published equations", network).split(None, 1)[1] == expected


@pytest.mark.parametrize(
    ("reading", "name", "expected"),
    [
        ("as printed, 12 rows, 8 degrees", "G", "0.083 +- 0.120, 95 % -0.19 to 0.36"),
        ("as printed", "D", "0.109 +- 0.139, 95 % -0.21 to 0.43"),
        ("as printed", "log_N", "-0.874 +- 0.139, 95 % -1.20 to -0.55"),
        ("conjecture: DomainNet's columns exchanged", "G", "-0.159 +- 0.188, 95 % -0.59 to 0.28"),
        ("conjecture", "D", "0.286 +- 0.194, 95 % -0.16 to 0.73"),
        ("conjecture", "log_N", "-0.778 +- 0.110, 95 % -1.03 to -0.52"),
        ("without DomainNet, 9 rows, 5 degrees", "G", "-0.188 +- 0.216, 95 % -0.74 to 0.37"),
        ("without DomainNet", "D", "0.342 +- 0.217, 95 % -0.22 to 0.90"),
        ("without DomainNet", "log_N", "-0.769 +- 0.124, 95 % -1.09 to -0.45"),
        ("ln N alone", "log T", "= -0.84 log N + 2.84   R2 0.87"),
        ("ln N alone", "slope of ln T on ln N,", "-0.521 +- 0.064, 95 % -0.66 to -0.38"),
    ],
)
def test_fits(printed, reading, name, expected):
    line = line_after(printed.stdout, "Least squares", reading, name)
    assert line.endswith(expected)


def test_what_must_be_said_is_said(printed):
    text = " ".join(printed.stdout.split())
    for statement in (
        "could not reproduce the published equations",
        "2.86, is near the mean of ln T (2.84)",
        "with T of Aircraft as in the figure it is that mean",
        "chosen after seeing the data",
        "In every reading the intervals of G and D contain 0: only ln N is determined.",
        "confounded with the number of steps",
        "the number of classes cannot be told apart",
    ):
        assert statement in text


def test_statements_are_true_of_the_numbers():
    table = read_published()
    assert np.log(table["T"]).mean() == pytest.approx(2.84, abs=0.005)
    for read in published.readings(table).values():
        beta, errors, _ = fit(read)
        half = published.T_975[len(read["T"]) - 4] * errors
        assert (np.abs(beta) < half).tolist() == [False, True, True, False]
    exchanged = published.readings(table)[published.CONJECTURE]
    products = exchanged["D"] * exchanged["K"]
    others = products[table["dataset"] != "POCUS"]
    assert (round(others.min()), round(others.max())) == (6, 10)
    assert exchanged["G"][-3:] == pytest.approx([0.4677, 0.4555, 0.8232])
    assert np.median(products[:9]) == pytest.approx(8, abs=0.5)


def test_quantiles_of_t_are_those_of_the_distribution():
    from scipy.stats import t

    for degrees, quantile in published.T_975.items():
        assert quantile == round(t.ppf(0.975, degrees), 3)


def test_no_option_is_known(capsys):
    assert run(lambda: findings.main(["published", "--no_such"])) == 2
    assert capsys.readouterr().err == (
        "error: unrecognized arguments: --no_such (see python -m findings published --help)\n"
    )


# Least squares


def test_fit_of_one_predictor_is_the_closed_form():
    x, y = np.array([1.0, 2, 4, 7, 9]), np.array([2.0, 1.5, 1.7, 0.3, 0.2])
    (intercept, beta), (_, beta_error), r_squared = fit({"x": x, "T": np.exp(y)}, ["x"])
    slope = np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2)
    residuals = y - y.mean() - slope * (x - x.mean())
    error = np.sqrt(residuals @ residuals / 3 / np.sum((x - x.mean()) ** 2))
    assert (intercept, beta) == pytest.approx((y.mean(), slope * x.std()))
    assert beta_error == pytest.approx(error * x.std())
    assert r_squared == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)


@given(
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=20).filter(lambda x: len(set(x)) > 1),
    st.floats(-300, 300),
)
def test_standardising_forgets_the_scale(values, exponent):
    values = np.array(values, dtype=float)
    ones, plain = design({"x": values}).T
    assert ones.tolist() == [1] * len(values)
    assert (plain.mean(), plain.std()) == pytest.approx((0, 1), abs=1e-12)
    assert design({"x": values * 10**exponent})[:, 1] == pytest.approx(plain, abs=1e-9)


@pytest.mark.parametrize(
    ("coefficients", "expected"),
    [
        ((-0.26, 0.32), "log T = -0.26 G + 0.32 log N + 2.86"),
        ((0.1, -1.005), "log T = 0.10 G - 1.00 log N + 2.86"),
        ((-0.001, -0.0), "log T = 0.00 G + 0.00 log N + 2.86"),
    ],
)
def test_equation_in_the_papers_form(coefficients, expected):
    assert equation(("G", "log_N"), coefficients, 2.86) == expected
