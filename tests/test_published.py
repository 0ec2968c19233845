"""The published numbers and what `python -m findings published` makes of them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from console import InputError, run
from findings import __main__ as findings
from findings import depth, published
from findings.least_squares import design, equation, fit, standardise
from findings.table import read_column, read_table

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
    assert not modules & {"torch", "statsmodels", "scipy", "matplotlib", "torchvision"}
    assert printed.stdout.isascii()
    assert max(map(len, printed.stdout.splitlines())) <= 105


def test_curve_of_cifar10(printed):
    assert "8.86, 8.88, 5.96, 13.0, 13.81, 1.0\n" in printed.stdout
    assert "mean of the 17 values without the classifier: 7.7847 (published 7.79" in printed.stdout
    assert "rank correlation with depth (Spearman): 0.51" in printed.stdout


def test_rank_correlation_is_spearmans():
    from scipy.stats import spearmanr

    blocks = published.PUBLISHED[:-1]
    assert len(set(blocks)) == len(blocks) == 17
    expected = spearmanr(range(17), blocks).statistic
    assert depth.depth_correlation(blocks) == pytest.approx(expected, abs=1e-12)
    assert depth.depth_correlation((3.0, 2.0, 1.0)) == pytest.approx(-1)


def test_table_has_the_twelve_rows(printed):
    table = read_table(published.TABLE)
    assert len(table.rows) == 12
    assert "README of the original repository" in table.notes[0]
    assert read_column(table, "N").sum() == 326_908
    assert read_column(table, "T").sum() == pytest.approx(317.18)
    assert read_column(table, "K").sum() == 1635
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
        "chosen after seeing the data",
        "In every reading the intervals of G and D contain 0: only ln N is determined.",
        "confounded with the number of steps",
        "the number of classes cannot be told apart",
    ):
        assert statement in text


def test_statements_are_true_of_the_numbers():
    table = read_table(published.TABLE)
    assert read_column(table, "log_T").mean() == pytest.approx(2.84, abs=0.005)
    for read in published.readings(table).values():
        found = published.fit_table(read)
        half = published.T_975[found.degrees] * found.errors
        contains = np.abs(found.coefficients) < half
        assert contains.tolist() == [True, True, False]
    exchanged = published.readings(table)["conjecture: DomainNet's columns exchanged, G / 1000"]
    products = read_column(exchanged, "D") * read_column(exchanged, "K")
    others = [x for row, x in zip(table.rows, products, strict=True) if row.name != "POCUS"]
    assert (round(min(others)), round(max(others))) == (6, 10)
    assert read_column(exchanged, "G")[-3:] == pytest.approx([0.4677, 0.4555, 0.8232])
    printed_as = read_column(table, "D")[:9] * read_column(table, "K")[:9]
    assert np.median(printed_as) == pytest.approx(8, abs=0.5)


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


def test_standard_errors_are_those_of_the_closed_form_of_one_predictor():
    x, y = np.array([1.0, 2, 4, 7, 9]), np.array([2.0, 1.5, 1.7, 0.3, 0.2])
    found = fit(y, design({"x": x}))
    slope = np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2)
    residuals = y - y.mean() - slope * (x - x.mean())
    error = np.sqrt(residuals @ residuals / 3 / np.sum((x - x.mean()) ** 2))
    assert found.coefficients[0] == pytest.approx(slope * x.std())
    assert found.errors[0] == pytest.approx(error * x.std())
    assert found.intercept == pytest.approx(y.mean())
    assert found.r_squared == pytest.approx(np.corrcoef(x, y)[0, 1] ** 2)
    assert found.degrees == 3


@settings(deadline=None)
@given(
    st.lists(st.integers(-1000, 1000), min_size=3, max_size=20).filter(lambda x: len(set(x)) > 1),
    st.floats(-300, 300),
)
def test_standardising_forgets_the_scale(values, exponent):
    values = np.array(values, dtype=float)
    plain = standardise(values)
    assert plain.mean() == pytest.approx(0, abs=1e-12)
    assert plain.std() == pytest.approx(1)
    assert standardise(values * 10**exponent) == pytest.approx(plain, abs=1e-9)


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


# Reading tables


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; its first line must name the columns"),
        (b"# only a comment\n\n , \n", "is empty; its first line must name the columns"),
        (b"CIFAR-10,2.27,50000\nDTD,0.7,1880\n", "line 1: 2.27 names no column; a header"),
        (b"dataset,,T\n", "line 1: column 2 has no name"),
        (b"#\ndataset,T, T\n", "line 2: two columns are named T"),
        (b"dataset,T\na,1\nb,2,3\n", r"line 3 \(b\) has 3 cells; the header has 2"),
        (b"dataset,T\n#\n\nb\n", r"line 4 \(b\) has 1 cells; the header has 2"),
        (b"dataset,T\na,1\nb,2\na, 1\n", r"line 4 \(a\) repeats line 2; remove one of them"),
        (b'dataset,T\n"a,1\n', "unexpected end of data; give a CSV file"),
        (b"\x89PNG\xff\xfe\n", "is not UTF-8 text; give a CSV file"),
    ],
)
def test_wrong_table_is_one_line(tmp_path, content, message):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_missing_table_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"none\.csv: No such file or directory; give a CSV file"):
        read_table(tmp_path / "none.csv")
    with pytest.raises(InputError, match="Is a directory"):
        read_table(tmp_path)


def test_table_of_a_spreadsheet(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'\xef\xbb\xbf# source\r\ndataset, N,T\r\n"a, b",5_0, 2\r\n,,\r\n')
    table = read_table(path)
    assert (table.columns, table.notes) == (["dataset", "N", "T"], ["source"])
    assert [(row.line, row.name) for row in table.rows] == [(3, "a, b")]
    assert read_column(table, "log_N") == pytest.approx([np.log(50)])


def test_columns_by_other_names(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("name,samples,classes,log_D,D\na,10,2,7,0\n")
    table = read_table(path)
    assert [read_column(table, name)[0] for name in ("N", "K", "log_D", "D")] == [10, 2, 7, 0]
    assert table.rows[0].name == "a"
    path.write_text("name,samples,train_images\na,10,12\n")
    with pytest.raises(InputError, match="N could be samples or train_images; rename one"):
        read_column(read_table(path), "log_N")
