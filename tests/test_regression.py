"""`python -m findings regression` on tables written for the test, against closed forms."""

import contextlib
import math
import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from console import InputError, run
from findings import __main__ as findings
from findings import published
from findings.reader import Table, read_column, read_table
from findings.regression import regress

ROWS = [
    ("a", "0.1", "2.0", "1000", "10", "100", "8.1"),
    ("b", "0.5", "1.0", "5000", "20", "200", "6.2"),
    ("c", "0.3", "3.0", "2000", "5", "800", "9.7"),
    ("d", "0.9", "2.5", "50000", "100", "400", "3.4"),
    ("e", "0.7", "0.5", "10000", "50", "1600", "2.2"),
    ("f", "0.2", "1.5", "500", "3", "100", "20.5"),
    ("g", "0.8", "4.0", "20000", "200", "3200", "5.5"),
    ("h", "0.4", "0.2", "800", "17", "400", "12.0"),
]
HEADER = ("dataset", "G", "D", "samples", "classes", "steps", "transferability")


def write(path, rows=ROWS, header=HEADER):
    """A CSV file of these rows."""
    path.write_text("\n".join(",".join(row) for row in (header, *rows)) + "\n")
    return path


@pytest.fixture
def table(tmp_path):
    return write(tmp_path / "results.csv")


def call(*options):
    return run(lambda: findings.main(["regression", *map(str, options)]))


def make(columns):
    """A table of numbers: name -> values."""
    return Table("t.csv", pd.DataFrame(columns).map(repr), [])


def test_published_table(capsys):
    assert call(published.TABLE) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].endswith("12 rows, ln T on standardised predictors, 8 degrees of freedom")
    assert lines[1].startswith("note: Published for ResNet-50; source: README of the original")
    assert "log T = 0.08 G + 0.11 D - 0.87 log N + 2.84" in lines
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith("  ")}
    assert rows["intercept"] == ["2.838", "0.110", "2.584", "to", "3.091"]
    assert rows["G"] == ["0.083", "0.120", "-0.195", "to", "0.361", "0.02437"]
    assert rows["D"] == ["0.109", "0.139", "-0.211", "to", "0.429", "0.0004085"]
    assert rows["log_N"] == ["-0.874", "0.139", "-1.195", "to", "-0.553", "-0.5415"]
    assert "  R2 0.881, adjusted 0.837" in lines
    assert "  condition number 2.1 (1: uncorrelated predictors)" in lines
    pull = lines.index("  rows that pull hardest (mean leverage 0.33)")
    assert [line.split()[2] for line in lines[pull + 1 : pull + 4]] == [
        *("POCUS", "Flowers", "DomainNet-c"),
    ]
    assert lines[pull + 1].split(None, 3)[3] == "Cook's distance 0.74, leverage 0.97"
    assert lines[-1].startswith("ln N cannot be told from the number of steps")
    assert out.isascii()


def test_slope_on_ln_n_alone(capsys):
    assert call(published.TABLE, "--predictors", "log_data_amount") == 0
    out = capsys.readouterr().out
    assert "log T = -0.84 log data_amount + 2.84" in out
    assert "R2 0.868," in out
    assert re.search(r"^  log_data_amount .* -0\.5208$", out, re.MULTILINE)
    assert "ln N cannot be told" in out


def test_fit_is_numpys_and_influence_is_the_closed_form(table):
    read = read_table(table)
    names = ["G", "D", "log_N", "log_steps"]
    found = regress(read, names)
    x = np.array([[float(row[1]), float(row[2])] for row in ROWS])
    x = np.column_stack([x, *(np.log([float(row[i]) for row in ROWS]) for i in (3, 5))])
    x = np.column_stack([np.ones(8), (x - x.mean(0)) / x.std(0)])
    y = np.log([float(row[6]) for row in ROWS])
    beta, (squares,), *_ = np.linalg.lstsq(x, y, rcond=None)
    assert found.fit.params == pytest.approx(beta)
    hat = x @ np.linalg.inv(x.T @ x) @ x.T
    assert found.influence.hat_matrix_diag == pytest.approx(np.diag(hat))
    variance = squares / 3
    errors = np.sqrt(variance * np.diag(np.linalg.inv(x.T @ x)))
    assert found.fit.bse == pytest.approx(errors)
    residuals, h = y - x @ beta, np.diag(hat)
    assert found.influence.cooks_distance[0] == pytest.approx(
        residuals**2 * h / (5 * variance * (1 - h) ** 2)
    )
    total = np.sum((y - y.mean()) ** 2)
    assert found.fit.rsquared == pytest.approx(1 - squares / total)
    assert found.fit.rsquared_adj == pytest.approx(1 - squares / 3 / (total / 7))
    singular = np.linalg.svd(x, compute_uv=False)
    assert found.fit.condition_number == pytest.approx(singular[0] / singular[-1])
    # Two-sided 95 % of Student's t with 3 degrees of freedom, from a printed table.
    half = 3.182 * errors
    assert found.fit.conf_int() == pytest.approx(np.array([beta - half, beta + half]).T, abs=1e-3)


def test_error_of_a_row_left_out_is_that_of_the_fit_without_it(table, capsys):
    read = read_table(table)
    found = regress(read, ["G", "log_N"])
    errors = []
    for i in range(len(ROWS)):
        rest = read._replace(rows=read.rows.drop(index=read.rows.index[i]))
        columns = [read_column(rest, name) for name in ("G", "log_N", "log_T")]
        beta = np.linalg.lstsq(np.column_stack([np.ones(7), *columns[:2]]), columns[2])[0]
        row = [1, *(read_column(read, name)[i] for name in ("G", "log_N"))]
        errors.append(read_column(read, "log_T")[i] - row @ beta)
    assert found.influence.resid_press == pytest.approx(errors)
    y = read_column(read, "log_T")
    mean_alone = math.sqrt(np.mean([(y[i] - np.delete(y, i).mean()) ** 2 for i in range(8)]))
    assert call(table, "--predictors", "G,log_N") == 0
    error = math.sqrt(np.mean(np.square(errors)))
    expected = f"leave-one-out error {error:.3f} in ln T (root mean square; of the mean alone "
    assert f"{expected}{mean_alone:.3f})" in capsys.readouterr().out


def test_exact_dependence_is_found_with_its_slopes(tmp_path, capsys):
    """T = 50 N^0.1 steps^-0.7, up to rounding."""
    rows = [
        (f"{n}-{s}", str(n), str(s), repr(50 * n**0.1 * s**-0.7))
        for n in (500, 5000, 50000)
        for s in (200, 800)
    ]
    path = write(tmp_path / "t.csv", rows, ("dataset", "N", "steps", "T"))
    assert call(path, "--predictors", "log_N", "--with", "log_steps") == 0
    out = capsys.readouterr().out
    assert re.search(r"^  log_N .* 0\.1$", out, re.MULTILINE)
    assert re.search(r"^  log_steps .* -0\.7$", out, re.MULTILINE)
    assert "R2 1.000, adjusted 1.000" in out
    assert "cannot be told" not in out


def test_further_predictors(table, capsys):
    assert call(table, "--with", "steps, K") == 0
    out = capsys.readouterr().out
    assert re.search(r"log T = \S+ G . \S+ D . \S+ log N . \S+ steps . \S+ K . \S+$", out, re.M)
    assert "2 degrees of freedom" in out


def test_seeds_are_called_repetitions(tmp_path, capsys):
    again = [(*row[:-1], str(float(row[-1]) + 1)) for row in ROWS[:2]]
    assert call(write(tmp_path / "t.csv", [*ROWS, *again])) == 0
    assert capsys.readouterr().err == (
        "warning: 2 rows repeat the predictors of another (seeds?); the standard errors take them "
        "as independent\n"
    )


NUMBERS = st.lists(
    st.tuples(*[st.floats(0.1, 100)] * 3), min_size=6, max_size=15, unique_by=lambda row: row[0]
)


def fitted(columns, names=("x", "log_z")):
    """The regression, where the drawn numbers determine one well."""
    with contextlib.suppress(InputError):
        found = regress(make(columns), list(names))
        assume(found.fit.condition_number < 100 and found.influence.hat_matrix_diag.max() < 0.99)
        assume(found.fit.ssr > 1e-6)
        return found
    assume(False)
    return None


def assert_same(one, other, order=slice(None), tolerance=1e-6):
    assert one.fit.params == pytest.approx(other.fit.params, abs=tolerance)
    assert one.fit.bse == pytest.approx(other.fit.bse, abs=tolerance)
    assert one.fit.rsquared == pytest.approx(other.fit.rsquared, abs=tolerance)
    assert one.influence.resid_press[order] == pytest.approx(other.influence.resid_press, abs=1e-4)
    assert one.influence.cooks_distance[0][order] == pytest.approx(
        other.influence.cooks_distance[0], rel=1e-3, abs=1e-4
    )


@given(NUMBERS, st.floats(0.01, 1000), st.floats(-1000, 1000))
def test_scaling_and_shifting_a_predictor_changes_nothing(rows, scale, shift):
    x, z, t = map(np.array, zip(*rows, strict=True))
    assume(np.ptp(x) > 0.1)
    one = fitted({"x": x, "z": z, "T": t})
    # The logarithm turns a scale of z into a shift.
    assert_same(one, fitted({"x": x * scale + shift, "z": z * scale, "T": t}))


@given(NUMBERS, st.randoms(use_true_random=False))
def test_order_of_rows_changes_nothing(rows, random):
    order = list(range(len(rows)))
    random.shuffle(order)
    x, z, t = map(np.array, zip(*rows, strict=True))
    one = fitted({"x": x, "z": z, "T": t})
    other = fitted({"x": x[order], "z": z[order], "T": t[order]})
    assert_same(one, other, order)


@given(NUMBERS, st.floats(0.01, 100))
def test_scaling_t_moves_only_the_intercept(rows, scale):
    x, z, t = map(np.array, zip(*rows, strict=True))
    one = fitted({"x": x, "z": z, "T": t})
    other = fitted({"x": x, "z": z, "T": t * scale})
    assert other.fit.params[1:] == pytest.approx(one.fit.params[1:], abs=1e-6)
    assert other.fit.params[0] == pytest.approx(one.fit.params[0] + math.log(scale), abs=1e-6)


# Bad input


def changed(row, column, text):
    """ROWS with one cell changed."""
    rows = [list(cells) for cells in ROWS]
    rows[row][HEADER.index(column)] = text
    return rows


def assert_refused(code, capsys, message):
    captured = capsys.readouterr()
    assert code == 2
    assert captured.out == ""
    assert re.search(message, captured.err), captured.err
    assert captured.err.startswith("error: ")
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("row", "column", "text", "message"),
    [
        (0, "G", "", r"line 2 \(a\), column G: the value is missing; fill it in or leave"),
        (7, "samples", "0", r"line 9 \(h\), column samples: 0 has no logarithm; it must be above"),
        (3, "transferability", "inf", r"line 5 \(d\), column transferability: inf is not finite"),
        (1, "D", "nan", r"line 3 \(b\), column D: nan is not finite; leave the row out"),
        (6, "D", "1.2.3", r"line 8 \(g\), column D: '1\.2\.3' is not a number"),
        (6, "D", "12\u00b5\x1b", "column D: '12\u00b5\\\\x1b' is not a number"),
    ],
)
def test_wrong_cell_is_one_line(tmp_path, capsys, row, column, text, message):
    path = write(tmp_path / "results.csv", changed(row, column, text))
    assert_refused(call(path), capsys, message)


def test_cell_that_is_not_used_may_be_empty(tmp_path):
    assert call(write(tmp_path / "results.csv", changed(0, "classes", ""))) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--with", "size"), "has no column size; it has dataset, G, D, samples, classes, st"),
        (("--predictors", "log_"), "has no column log_; it has dataset"),
        (("--with", "dataset"), r"line 2 \(a\), column dataset: 'a' is not a number"),
        (("--with", "T"), "predictor T: T is what is explained; leave it out"),
        (("--with", "log_transferability"), "predictor log_transferability: T is what is expl"),
        (("--with", "log_samples"), "predictor log_samples is given twice"),
        (("--with", "K,,G"), "--with: must be names with commas between, not 'K,,G'"),
        (("--predictors", ""), "--predictors: must be names with commas between, not ''"),
        (("--with", "K,log_K,steps,log_steps"), "has 8 rows; 8 coefficients need at least 10"),
        (("--no_such",), "unrecognized arguments: --no_such"),
    ],
)
def test_wrong_option_is_one_line(table, capsys, options, message):
    assert_refused(call(table, *options), capsys, message)


@pytest.mark.parametrize("name", ["probe_loss", "log_val_acc", "T conv1"])
def test_what_is_measured_after_fine_tuning_is_no_predictor(tmp_path, capsys, name):
    header = (*HEADER, name.removeprefix("log_"))
    path = write(tmp_path / "t.csv", [(*row, row[1]) for row in ROWS], header)
    message = f"predictor {name} is measured after fine-tuning, as T is: it explains nothing"
    assert_refused(call(path, "--with", name), capsys, message)


def test_rows_must_outnumber_the_coefficients_by_two(tmp_path, capsys):
    assert call(write(tmp_path / "six.csv", ROWS[:6])) == 0
    capsys.readouterr()
    five = write(tmp_path / "five.csv", ROWS[:5])
    assert_refused(call(five), capsys, "five.csv has 5 rows; 4 coefficients need at least 6")
    none = write(tmp_path / "none.csv", [])
    assert_refused(call(none), capsys, "none.csv has 0 rows; 4 coefficients need at least 6")


def test_blocks_of_a_study_are_not_pooled(tmp_path, capsys):
    random = np.random.default_rng(0)
    rows = [
        f"{block},Folder,set{i},{labels},theta_A,{i % 3 + 2},{2**i},{math.exp(1 - 0.5 * i + x)}"
        for block, labels in (("P", "true"), ("W", "true"), ("P", "random"))
        for i, x in enumerate(random.normal(0, 0.1, 8))
    ]
    path = tmp_path / "t.csv"
    path.write_text("\n".join(["block,dataset,folder,labels,start,classes,N,T", *rows]) + "\n")
    words = ["regression", str(path), "--predictors", "log_N"]
    assert run(lambda: findings.main(words)) == 2
    assert "has the blocks P, W; give one of them as --block" in capsys.readouterr().err
    assert run(lambda: findings.main([*words, "--block", "X"])) == 2
    capsys.readouterr()
    assert run(lambda: findings.main([*words, "--block", "P"])) == 0
    out = capsys.readouterr().out
    assert "8 of 16 rows left out, whose labels are random" in out
    assert f"{path}: 8 rows, " in out


def test_regression_of_a_study_is_of_the_rows_that_compare(tmp_path, table, capsys):
    plain = ("theta_A", "128", "x", "10")
    changed = [("random", *plain[1:]), ("theta_A", "32", "x", "10"), (*plain[:3], "5")]
    settings = changed + [plain] * 8
    sizes = [(row[3], row[5], row[6]) for row in ROWS]
    rows = [(*a, *b) for a, b in zip(settings, sizes[:3] + sizes, strict=True)]
    header = ("start", "batch_size", "dataset", "classes", "samples", "steps", "transferability")
    path = write(tmp_path / "study.csv", rows, header)
    options = ("--predictors", "log_N,log_steps")
    assert call(path, *options) == 0
    out = capsys.readouterr().out.splitlines()
    assert call(table, *options) == 0
    expected = capsys.readouterr().out.splitlines()
    assert out[:3] == [
        f"{path}: 1 of 11 rows left out, whose start is not theta_A",
        f"{path}: 1 of 11 rows left out, which differ from the rest in batch_size; kept: "
        "batch_size 128",
        f"{path}: 1 of 11 rows left out, with other classes than most of their data set; kept: "
        "dataset x, classes 10",
    ]
    assert out[3] == f"{path}: {expected[0].removeprefix(f'{table}: ')}"
    assert out[4:10] == expected[1:7]


def test_constant_column(tmp_path, capsys):
    rows = [(*row[:2], "0.1", *row[3:]) for row in ROWS]
    message = "results.csv: D is the same in every row; it explains nothing"
    assert_refused(call(write(tmp_path / "results.csv", rows)), capsys, message)
    rows = [(*row[:-1], "7.3") for row in ROWS]
    message = "results.csv: log_T is the same in every row"
    assert_refused(call(write(tmp_path / "results.csv", rows)), capsys, message)


def test_collinear_predictors(tmp_path, capsys):
    # At equal epochs and batch size the steps are proportional to the images.
    rows = [(*row[:5], str(int(row[3]) // 100), row[6]) for row in ROWS]
    path = write(tmp_path / "results.csv", rows)
    message = r"log_steps follows from G, D, log_N \(collinear\); leave one of them out"
    assert_refused(call(path, "--with", "log_steps"), capsys, message)


@pytest.mark.parametrize(
    ("noise", "warned"), [(1e-6, True), (1e-3, True), (0.05, True), (1.0, False)]
)
def test_nearly_collinear_predictors_are_cautioned_of(tmp_path, capsys, noise, warned):
    wobble = (1, -1, 1, 1, -1, 1, -1, -1)
    rows = [
        (*row[:5], repr(float(row[1]) + float(row[2]) + noise * w), row[6])
        for row, w in zip(ROWS, wobble, strict=True)
    ]
    assert call(write(tmp_path / "t.csv", rows), "--with", "steps") == 0
    printed = capsys.readouterr()
    number = float(re.search(r"condition number ([\d.]+) \(1:", printed.out)[1])
    assert (number >= 10) == warned
    caution = re.search(
        r"^warning: G, D, steps are nearly collinear: condition number (\S+) \(caution from 10\)",
        printed.err,
        re.MULTILINE,
    )
    assert (caution is not None) == warned
    if caution:
        assert float(caution[1]) == pytest.approx(number, rel=0.01)


def test_row_that_alone_decides_a_coefficient(tmp_path, capsys):
    rows = [(*row[:4], "1" if row[0] == "c" else "0", *row[5:]) for row in ROWS]
    path = write(tmp_path / "results.csv", rows)
    message = r"line 4 \(c\) alone decides a coefficient of G, D, log_N, K; leave out the row or a"
    assert_refused(call(path, "--with", "K"), capsys, message)
