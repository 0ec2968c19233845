"""`python -m findings summary`: slopes by cell, runs with one thing changed, and depth."""

import contextlib
import io
import math
import re
import statistics

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr
from statsmodels.formula.api import ols
from statsmodels.stats.anova import anova_lm

from console import run
from findings import published
from findings.__main__ import main

HEADER = (
    "dataset,start,samples,classes,steps,batch_size,lr,weight_decay,seed,a_sha256,"
    "transferability,T l1,T l2,T l3"
)
RESULTS = published.TABLE.with_name("results.csv")


def row(**changes):
    """A row of results with three layers."""
    cells = dict.fromkeys(HEADER.split(","), "1") | {
        **{"dataset": "X", "start": "theta_A", "samples": "500.0", "steps": "200"},
        **{"classes": 10, "batch_size": 128, "lr": "0.01", "weight_decay": "1e-4", "seed": "0"},
        **{"a_sha256": "aa", "T l1": "1", "T l2": "2", "T l3": "3"},
    }
    return ",".join(str(cell) for cell in (cells | changes).values())


@pytest.fixture
def summarise(tmp_path, capsys):
    """Exit code, stdout and stderr of the command on these rows."""

    def call(rows, header=HEADER):
        (tmp_path / "r.csv").write_text("\n".join([header, *rows]) + "\n")
        code = run(lambda: main(["summary", str(tmp_path / "r.csv")]))
        return code, *capsys.readouterr()

    return call


def lines_of(summarised):
    code, out, err = summarised
    assert (code, err) == (0, "")
    return out.splitlines()


# Images and steps


def grid(slopes, **changes):
    """Nine runs a seed whose ln T is 1 + b ln N + c ln S, without noise."""
    rows = []
    for seed, (b, c) in enumerate(slopes):
        for n in (500, 2000, 8000):
            for s in (200, 800, 3200):
                t = math.exp(1 + b * math.log(n) + c * math.log(s))
                sizes = {"samples": n, "steps": s, "seed": seed}
                rows.append(row(transferability=repr(t), **sizes, **changes))
    return rows


def test_slopes_are_recovered_cell_by_cell_and_at_equal_epochs(summarise):
    # Neither a random start nor a run with another batch size belongs to them.
    sizes = {"samples": 8000, "steps": 800, "transferability": 5}
    rows = [*grid([(0.1, -0.7), (0.2, -0.6), (0.0, -0.5)])]
    rows += [row(**sizes, start="random"), row(**sizes, batch_size=32)]
    lines = lines_of(summarise(rows))
    assert lines[0] == "dataset X, classes 10, batch_size 128, lr 0.01, weight_decay 1e-4:"
    assert lines[1] == "  slope of ln T on ln S at equal N, mean over 3 seeds"
    assert [line.split() for line in lines[2:5]] == [
        ["N", "500", "N", "2000", "N", "8000"],
        ["200", "->", "800", *["-0.60"] * 3],
        ["800", "->", "3200", *["-0.60"] * 3],
    ]
    assert lines[5] == "  slope of ln T on ln N at equal S, mean over 3 seeds"
    assert lines[7].split() == ["500", "->", "2000", *["+0.10"] * 3]
    assert lines[9] == "  slope of ln T on ln N at equal epochs, where S grows with N"
    # Seeds: -0.6, -0.4, -0.5; sd 0.1, t(0.975, 2) = 4.303.
    half = 4.303 * 0.1 / math.sqrt(3)
    ending = f"-0.500 (95 % over 3 seeds {-0.5 - half:+.3f} ... {-0.5 + half:+.3f})"
    assert [line.rstrip() for line in lines[10:14]] == [
        f"    {cells:32}{ending}"
        for cells in (
            "N 500 -> 2000, S 200 -> 800",
            "N 500 -> 2000, S 800 -> 3200",
            "N 2000 -> 8000, S 200 -> 800",
            "N 2000 -> 8000, S 800 -> 3200",
        )
    ]
    assert lines[14].startswith(
        "  one line, ln T = a + b ln N + c ln S: 3 seeds; N 500, 2000, 8000"
    )
    assert lines[16].startswith("    b      +0.100 (95 % ")
    assert lines[17].startswith("    c      -0.600 (95 % ")
    assert lines[18].startswith("    b + c  -0.500 (95 % ")
    assert (
        lines[20] == "published slope of ln T on ln N: -0.52 (95 % over data sets -0.66 ... -0.38)"
    )


def test_one_seed_has_no_interval_over_seeds(summarise):
    lines = lines_of(summarise(grid([(0.1, -0.7)])))
    assert lines[10].endswith("-0.600 (one seed, no interval)")
    assert not any("misfit against" in line for line in lines)


def test_sizes_that_do_not_grow_alike_have_no_equal_epochs(summarise):
    rows = [row(samples=n, steps=s, transferability=n / s) for n in (500, 1000) for s in (200, 800)]
    lines = lines_of(summarise(rows))
    assert not any("equal epochs" in line for line in lines)
    assert lines[3].split() == ["200", "->", "800", "-1.00", "-1.00"]


def test_misfit_of_the_line_widens_its_intervals(summarise):
    """ln T bends over ln S and has hardly any noise: over seeds alone the intervals would be 0."""
    rows = []
    for seed in range(4):
        for n in (500, 2000):
            for s in (200, 800, 3200)[: 3 if seed < 2 else 2]:
                t = math.exp(5 - 0.05 * math.log(s) ** 2 + 1e-4 * ((seed * 7 + n + s) % 3))
                rows.append(row(transferability=repr(t), samples=n, steps=s, seed=seed))
    lines = lines_of(summarise(rows))
    assert [line.partition(": ")[2] for line in lines if "one line" in line] == [
        "4 seeds; N 500, 2000; S 200, 800",
        "2 seeds; N 500, 2000; S 200, 800, 3200",
    ]
    pattern = re.compile(r"    c +(\S+) \(95 % (\S+) \.\.\. (\S+)\)")
    short, long = ([float(x) for x in m.groups()] for line in lines if (m := pattern.match(line)))
    assert short[2] - short[1] < 0.001
    assert long[2] - long[1] > 0.05
    assert sum("misfit against the spread of the seeds: F(" in line for line in lines) == 2


def test_sizes_that_go_together_are_not_fitted_by_a_line(summarise):
    rows = [row(samples=n, steps=10 * n, transferability=n) for n in (100, 200, 400, 800, 1600)]
    lines = lines_of(summarise(rows))
    assert lines[1] == "  slope of ln T on ln N at equal epochs, where S grows with N"
    assert lines[2].endswith("+1.000 (one seed, no interval)")
    assert not any("one line" in line for line in lines)


def test_without_two_sizes_there_are_no_slopes(summarise):
    line = "no slopes of ln T: they take runs of one setting and seed whose N or S differs"
    assert lines_of(summarise([row(), row(seed=1)]))[0] == line


def test_two_theta_a_are_fitted_apart(summarise):
    rows = grid([(0.1, -0.5)]) + grid([(0.1, -0.5)], a_sha256="bb" * 32)
    titles = [line for line in lines_of(summarise(rows)) if line.startswith("dataset X")]
    assert [title.rpartition(" ")[2] for title in titles] == ["aa:", "bbbbbbbb:"]


def test_settings_compare_as_numbers(summarise):
    rows = grid([(0.1, -0.5)], lr="1e-2")[:4] + grid([(0.1, -0.5)])[4:]
    _, out, _ = summarise(rows)
    # A heading of the slopes and one of the profiles.
    assert out.count("dataset X") == 2
    assert "one thing changed" not in out


# One thing changed


def changed(rows, summarise):
    """The lines about it."""
    lines = lines_of(summarise(rows))
    if "one thing changed (ratio: geometric mean over seeds)" not in lines:
        assert not any("changed" in line for line in lines)
    return [line for line in lines if " beside " in line]


def test_changed_runs_are_compared_with_the_run_of_the_same_seed_images_and_steps(summarise):
    def arm(seed, t, **changes):
        return row(seed=seed, transferability=t, **{"samples": 8000, "steps": 800} | changes)

    rows = [arm(seed, 10 * (seed + 1)) for seed in range(3)]
    # Another number of images or steps, and the null, are not what an arm is compared with.
    rows += [arm(seed, 500, samples=500) for seed in range(3)]
    rows += [arm(seed, 900, steps=200) for seed in range(3)]
    rows += [arm(0, 7, start="random", batch_size=32)]
    # The same number, written in another way, is no change.
    rows += [arm(3, 40, weight_decay="0.0001")]
    # Ratios 0.4, 0.5, 0.6 and their geometric mean, 0.493; t(0.975, 2) = 4.303.
    rows += [arm(seed, (4 + seed) * (seed + 1), batch_size=32) for seed in range(3)]
    rows += [arm(0, 20, classes=2, weight_decay=0)]
    rows += [arm(4, 1, classes=5)]  # no run beside it
    logs = [math.log(ratio) for ratio in (0.4, 0.5, 0.6)]
    half = 4.303 * statistics.stdev(logs) / math.sqrt(3)
    low, high = (math.exp(statistics.fmean(logs) + x) for x in (-half, half))
    assert changed(rows, summarise) == [
        "  batch_size 32: T 10.67 beside 20.00 (N 8000, S 800), ratio 0.493 "
        f"(95 % over 3 seeds {low:.3f} ... {high:.3f})",
        "  classes 2, weight_decay 0: T 20.00 beside 10.00 (N 8000, S 800), ratio 2.000 (one seed)",
    ]


def test_without_changed_runs_or_runs_from_theta_a_nothing_is_said_of_them(summarise):
    assert changed([row(seed=0), row(seed=1)], summarise) == []
    assert changed([row(start="random")], summarise) == []


# Depth


def layers(*values, **changes):
    return row(**{f"T l{i}": value for i, value in enumerate(values, start=1)}, **changes)


def test_depth_is_correlated_cell_by_cell_for_every_setting_by_itself(summarise):
    rows = [layers(1, 2, 3, seed=0), layers(3, 2, 1, seed=0, steps=800), layers(1, 3, 2, seed=1)]
    rows += [layers(1, 3, 2, seed=1, samples=8000), layers(3, 2, 1, classes=2)]
    rows += [layers(1, 2, 3, batch_size=32)]
    lines = lines_of(summarise(rows))
    first = lines.index(
        "rank correlation of T with depth (3 layers), mean over the seeds of a cell"
    )
    settings = "lr 0.01, weight_decay 1e-4: rises in"
    assert lines[first + 1] == f"  dataset X, classes 2, batch_size 128, {settings} 0 of 1 runs"
    assert lines[first + 3].split() == ["S", "200", "-1.00"]
    assert lines[first + 4] == f"  dataset X, classes 10, batch_size 128, {settings} 3 of 4 runs"
    assert [line.split() for line in lines[first + 5 : first + 8]] == [
        ["N", "500", "N", "8000"],
        # Seeds of the first cell: +1 and +0.5.
        ["S", "200", "+0.75", "+0.50"],
        ["S", "800", "-1.00", "-"],
    ]
    assert lines[first + 8] == f"  dataset X, classes 10, batch_size 32, {settings} 1 of 1 runs"


@pytest.mark.parametrize("word", ["random", "null"])
def test_t_over_t0_says_what_it_is_worth(summarise, word):
    rows = [layers(4, 4, 4, seed=0), layers(9, 9, 9, seed=1), layers(5, 5, 5, samples=8000)]
    rows += [layers(1, 2, 4, start=word, seed=0), layers(1, 2, 4, start=word, seed=1)]
    lines = lines_of(summarise(rows))
    first = lines.index("T / T0, geometric mean over the layers; T0: the same from random starts")
    assert "no evidence about transfer" in lines[first + 1]
    assert "with depth whatever T does" in lines[first + 2]
    # Geometric means 6 and 2; of the runs of 8,000 images there is no random start. The spread is
    # that of the runs alone, with one degree of freedom: t(0.975, 1) = 12.706.
    half = 12.706 * math.log(9 / 4) / 2
    low, high = (3 * math.exp(x) for x in (-half, half))
    line, profiles = lines[first + 3 :]
    assert line.startswith("  N 500, S 200: 3.00 (95 % over 2 seeds and 2 starts ")
    shown = re.search(r"starts (\S+) \.\.\. (\S+)\)", line).groups()
    assert list(map(float, shown)) == pytest.approx([low, high], rel=1e-3, abs=0.006)
    assert profiles == "    rank correlation with depth: T +nan, T0 +1.00, T / T0 -1.00"


def test_layers_that_did_not_move_are_ties_of_a_profile_and_left_out_of_ratios(summarise):
    lines = lines_of(summarise([layers("inf", 2, "inf"), layers(1, 2, 3, start="random")]))
    assert "    S 200             +0.00" in lines
    assert lines[-2] == "  N 500, S 200: 1.00 (no interval)"


def test_t_is_not_divided_by_t0_of_another_budget(summarise, tmp_path):
    header = f"{HEADER},sum_lr,image_size"
    rows = [row() + ",1.005,32", row(start="random") + ",1.005,", row(seed=1) + ",1.0050000001,32"]
    assert summarise(rows, header)[0] == 0
    rows.append(row(start="random", seed=1) + ",2.01,32")
    code, out, err = summarise(rows, header)
    assert (code, out) == (2, "")
    assert err == (
        "error: lines 2 and 5 of the table differ in sum_lr (1.005, 2.01): T / T0 is of one budget "
        "only\n"
    )


# The shipped study, computed again


@pytest.fixture(scope="module")
def shipped():
    """The runs of the grid in the shipped table."""
    table = pd.read_csv(RESULTS)
    table = table.assign(y=np.log(table.transferability), n=np.log(table.samples))
    table = table.assign(s=np.log(table.steps))
    grid = (table.classes == 10) & (table.batch_size == 128) & (table.weight_decay == 1e-4)
    return table[(table.start == "theta_A") & grid]


@pytest.fixture(scope="module")
def shipped_lines():
    """What the command prints of it."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert run(lambda: main(["summary", str(RESULTS)])) == 0
    return out.getvalue().splitlines()


def test_page_of_the_study_has_what_is_printed(shipped_lines):
    assert "\n".join(["```", *shipped_lines, "```"]) in RESULTS.with_name("README.md").read_text()


def test_shipped_slopes_are_those_of_the_cells(shipped, shipped_lines):
    means = shipped[shipped.seed < 3].pivot_table(index="samples", columns="steps", values="y")
    cells = means.to_numpy()
    diagonal = (cells[1:, 1:] - cells[:-1, :-1]) / math.log(4)
    shown = [
        float(line.split("(")[0].split()[-1])
        for line in shipped_lines
        if re.match(r"    N \d+ -> \d+, S ", line)
    ]
    assert shown == pytest.approx(diagonal.ravel(), abs=6e-4)
    assert (round(diagonal.min(), 2), round(diagonal.max(), 2)) == (-0.67, -0.54)
    on_n, on_s = (np.diff(cells, axis=axis) / math.log(4) for axis in (0, 1))
    assert (round(on_n.min(), 2), round(on_n.max(), 2)) == (-0.13, 0.15)
    first = shipped_lines.index("  slope of ln T on ln N at equal S, mean over 3 seeds")
    rows = [line.split()[3:] for line in shipped_lines[first + 2 : first + 5]]
    assert np.array(rows, dtype=float) == pytest.approx(on_n, abs=6e-3)
    rows = [line.split()[3:] for line in shipped_lines[2 + 1 : 2 + 3]]
    assert np.array(rows, dtype=float) == pytest.approx(on_s.T, abs=6e-3)


def test_shipped_line_has_its_misfit_in_the_error(shipped, shipped_lines):
    for runs, seeds in ((shipped[shipped.steps < 3200], 5), (shipped[shipped.seed < 3], 3)):
        fit = ols("y ~ n + s + C(seed)", runs).fit()
        first = next(i for i, line in enumerate(shipped_lines) if f"c ln S: {seeds} seeds" in line)
        for offset, name in ((2, "n"), (3, "s")):
            low, high = fit.conf_int().loc[name]
            shown = f"{fit.params[name]:+.3f} (95 % {low:+.3f} ... {high:+.3f})"
            assert shipped_lines[first + offset].endswith(shown)
        line, cells = (ols(f"y ~ {x}", runs).fit() for x in ("n + s", "C(samples) * C(steps)"))
        test = anova_lm(line, cells).iloc[1]
        expected = f"F({test.df_diff:.0f}, {cells.df_resid:.0f}) = {test.F:.1f};"
        assert expected in shipped_lines[first + 5]


def test_shipped_profiles_rise_with_two_classes_only(shipped, shipped_lines):
    rises = [line.partition(": rises in ") for line in shipped_lines if "rises in" in line]
    assert [(re.search(r"classes (\d+)", title)[1], runs) for title, _, runs in rises] == [
        *(("2", "5 of 5 runs"), ("5", "0 of 5 runs"), ("10", "0 of 52 runs")),
        *(("10", "0 of 5 runs"), ("10", "0 of 5 runs")),
    ]
    layers_of_t = [column for column in shipped if column.startswith("T ")]
    rho = shipped[layers_of_t].apply(lambda t: spearmanr(range(17), t).statistic, axis=1)
    cell = rho.groupby([shipped.steps, shipped.samples]).mean()
    line = next(line for line in shipped_lines if re.match(r"    S 3200 .* .* ", line))
    assert [float(x) for x in line.split()[2:]] == pytest.approx(cell[3200].to_list(), abs=6e-3)


# Bad input


@pytest.mark.parametrize(
    ("column", "cell", "message"),
    [
        ("transferability", "inf", "inf is not finite"),
        ("T l3", "", "the value is missing; fill it in"),
        ("T l3", "nan", "nan is not finite"),
        ("steps", "0", "0 has no logarithm; it must be above 0"),
    ],
)
def test_wrong_cell_of_a_study_is_one_line(summarise, tmp_path, column, cell, message):
    code, out, err = summarise([row(seed=7), row(**{column: cell})])
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: {tmp_path / 'r.csv'} line 3 (X), column {column}: {message}")


def test_run_that_is_there_twice_and_table_of_something_else_are_one_line(summarise, tmp_path):
    code, out, err = summarise([row(), row(samples="5e2", lr="1e-2")])
    assert (code, out) == (2, "")
    assert err == (
        f"error: {tmp_path / 'r.csv'} line 3 (X) is of the same run as line 2: seed 0, samples "
        "5e2, steps 200; remove one of them\n"
    )
    code, out, err = summarise(["X,1"], "dataset,G")
    assert (code, out) == (2, "")
    assert "is not the table of a study: it has no column start" in err
